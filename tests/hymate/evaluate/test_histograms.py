"""Pooled figures from counts: always inside their bound, and no small count leaves a site."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from hymate.evaluate.histograms import (
    ScoreCells,
    auroc,
    average_precision,
    count_scores,
    join_small_cells,
    pool,
)


def cohort(seed: int, n: int, prevalence: float, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < prevalence).astype(np.float64)
    labels[:2] = [0.0, 1.0]  # both classes
    scores = 1 / (1 + np.exp(-rng.normal(labels * 1.2, 1.0)))
    return labels, np.round(scores, 2) if ties else scores


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(10, 400), min_size=1, max_size=5),
    prevalence=st.floats(0.02, 0.9),
    bins=st.sampled_from([16, 64, 512, 1024]),
    minimum=st.sampled_from([1, 3, 5, 10]),
    ties=st.booleans(),
)
def test_pooled_figures_lie_within_their_bounds(
    seed: int, sizes: list[int], prevalence: float, bins: int, minimum: int, ties: bool
) -> None:
    sites, labels, scores = [], [], []
    for number, n in enumerate(sizes):
        y, s = cohort(seed + number, n, prevalence, ties)
        cells = join_small_cells(count_scores(y, s, bins), minimum)
        if cells is not None:
            sites.append(cells)
            labels.append(y)
            scores.append(s)
    if not sites:
        return
    y, s = np.concatenate(labels), np.concatenate(scores)
    pooled = pool(sites)
    assert pooled.total_positives == y.sum()
    assert pooled.total_negatives == (1 - y).sum()
    for figure, truth in (
        (auroc(pooled, bins), roc_auc_score(y, s)),
        (average_precision(pooled, bins), average_precision_score(y, s)),
    ):
        assert figure is not None
        assert figure.lower - 1e-12 <= truth <= figure.upper + 1e-12
        assert figure.lower - 1e-12 <= figure.estimate <= figure.upper + 1e-12


def test_many_bins_approach_the_exact_figures() -> None:
    y, s = cohort(1, 10_000, 0.15, ties=False)
    cells = count_scores(y, s, 512)
    ranked, precise = auroc(cells), average_precision(cells)
    assert ranked is not None
    assert precise is not None
    assert ranked.estimate == pytest.approx(roc_auc_score(y, s), abs=3e-4)
    assert ranked.upper - ranked.estimate <= 0.002
    assert precise.estimate == pytest.approx(average_precision_score(y, s), abs=5e-3)


def test_worked_example() -> None:
    # Two cells: [0, 1] holds 1 positive and 2 negatives, [1, 3] holds 3 positives and 1 negative.
    cells = ScoreCells(*np.array([[0, 1, 1, 2], [1, 3, 3, 1]]).T)
    figure = auroc(cells, 4)
    assert figure is not None
    # No pair is certain: the cells share bin 1, and pairs inside a cell are undecided too.
    assert (figure.lower, figure.estimate, figure.upper) == (0.0, 0.5, 1.0)
    apart = auroc(ScoreCells(*np.array([[0, 0, 1, 2], [1, 3, 3, 1]]).T), 4)
    assert apart is not None
    assert apart.lower == pytest.approx(3 * 2 / 12)  # three positives above two negatives
    assert apart.upper == pytest.approx(1 - 1 / 12)  # one positive surely below one negative


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 300), minimum=st.integers(1, 20))
def test_no_count_below_the_minimum_leaves(seed: int, n: int, minimum: int) -> None:
    y, s = cohort(seed, n, 0.2, ties=False)
    cells = join_small_cells(count_scores(y, s), minimum)
    positives = int(y.sum())
    if cells is None:
        assert min(positives, n - positives) < minimum
        return
    for counts in (cells.positives, cells.negatives):
        assert np.all((counts == 0) | (counts >= minimum))
    assert cells.total_positives == positives
    assert np.all(cells.low[1:] > cells.high[:-1])


def test_one_class_has_no_figure() -> None:
    cells = count_scores(np.zeros(20), np.linspace(0, 1, 20))
    assert auroc(cells) is None
    assert average_precision(cells) is None
