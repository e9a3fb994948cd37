"""Counts by interval of score with noise: what a person can change, how noisy they are, what they tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hymate.evaluate.edges import first_edges
from hymate.evaluate.federated import NAMES, Fitted, Grid, Part, figures
from hymate.evaluate.histograms import BINS, ScoreCells, auroc, join_small_cells
from hymate.evaluate.metrics import auroc as exact_auroc
from hymate.evaluate.noisy_cells import (
    agreed_begins,
    cells_of,
    first_begins,
    middles,
    noised,
    norm,
    people,
    redrawn,
    spread_over,
    sums_of,
)

Floats = NDArray[np.float64]
BEGINS = first_begins()
STAY = st.tuples(st.integers(0, BINS - 1), st.booleans(), st.integers(-1, 2))


def none(count: int) -> Floats:
    return np.zeros(count)


def counted(stays: list[tuple[int, bool, int]], subjects: list[int]) -> Floats:
    columns = np.array(stays, np.int64).reshape(-1, 3).T
    groups = [(columns[2], 3), (columns[2] // 2, 2)]
    return people(BEGINS, columns[0], columns[1].astype(float), np.array(subjects, np.int64), groups)


@settings(max_examples=60, deadline=None)
@given(st.lists(STAY, max_size=5), st.lists(STAY, min_size=1, max_size=6))
def test_one_person_changes_the_counts_by_the_norm_at_most(
    others: list[tuple[int, bool, int]], stays: list[tuple[int, bool, int]]
) -> None:
    """Whatever the scores, labels and groups of their stays."""
    without = list(range(len(others)))
    difference = counted(others + stays, [*without, *[99] * len(stays)]) - counted(others, without)
    assert np.linalg.norm(difference) <= norm(2) + 1e-9
    assert difference[0].sum() == pytest.approx(1.0)  # each person is one, with all stays


def test_noise_has_the_deviation_and_leaves_counts_that_can_be() -> None:
    rng = np.random.default_rng(0)
    exact = np.full((1, 10, 2), 500.0)
    moved = np.stack([noised(exact, 20.0, rng.standard_normal) - 500 for _ in range(300)])
    assert moved.std() == pytest.approx(20.0, rel=0.05)
    assert moved.mean() == pytest.approx(0.0, abs=1.0)
    few = np.zeros((1, 10, 2))
    few[0, 0] = 100.0
    told = np.stack([noised(few, 20.0, rng.standard_normal)[0] for _ in range(300)])
    assert told.min() == 0
    assert told.sum(axis=1).mean() == pytest.approx(100.0, abs=10.0)  # cut off at zero it would be 170


def test_without_noise_it_says_what_the_scores_say() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.2).astype(float)
    scores = 1 / (1 + np.exp(2.5 - 1.2 * labels - rng.normal(size=4000)))
    edges = first_edges()
    exact = people(BEGINS, np.searchsorted(edges, scores, side="right"), labels, np.arange(4000))
    cells = cells_of(noised(exact, 0.0, none)[0], BEGINS, BINS, middles(BEGINS))
    assert (cells.total_positives, cells.total_negatives) == (labels.sum(), (1 - labels).sum())
    ranked, truth = auroc(cells), exact_auroc(labels, scores)
    assert ranked is not None
    assert truth is not None
    assert ranked.lower <= truth <= ranked.upper
    assert ranked.estimate == pytest.approx(truth, abs=0.03)
    sums = sums_of(cells)
    assert sums["score_sum"] == pytest.approx(scores.sum(), rel=0.1)
    assert sums["squared_error_sum"] == pytest.approx(np.square(scores - labels).sum(), rel=0.1)
    losses = -np.log(np.where(labels > 0.5, scores, 1 - scores))
    assert sums["log_loss_sum"] == pytest.approx(losses.sum(), rel=0.1)
    assert sums["log_loss_squares"] == pytest.approx(np.square(losses).sum(), rel=0.3)
    joined = join_small_cells(cells, 300)
    assert joined is not None
    back = spread_over(joined, BEGINS)
    assert len(joined.low) < len(cells.low)
    assert back.sum(axis=0) == pytest.approx(exact[0].sum(axis=0))


def test_cells_are_agreed_before_anybody_looks() -> None:
    assert (len(BEGINS), BEGINS[0], middles(BEGINS)[-1] > 0.99) == (10, 0, True)
    between = first_edges()[BEGINS[1:] - 1]
    assert np.log(between / (1 - between)) == pytest.approx(np.linspace(-5, 5, 9), abs=0.03)
    assert agreed_begins(500, None).tolist() == list(range(0, 500, 50))
    assert 123 in agreed_begins(500, 123)
    assert agreed_begins(4, None).tolist() == [0, 1, 2, 3]


def part(cells: ScoreCells, deviation: float | None) -> Part:
    return Part(cells, **sums_of(cells), deviation=deviation)


def test_intervals_of_figures_hold_the_truth_about_as_often_as_they_say() -> None:
    """Over 60 releases of the same people; where noise is large its part of the interval is, too."""
    rng = np.random.default_rng(1)
    grid = Grid(np.linspace(0, 1, 41)[1:-1], 0.5)
    begins = agreed_begins(grid.bins, grid.threshold_bin)
    middle = middles(begins, grid.edges)
    truth = np.stack([np.linspace(5, 40, len(begins)), np.linspace(150, 10, len(begins))], axis=1)[None]

    def told(deviation: float) -> Part:
        counts = noised(truth, deviation, rng.standard_normal)
        return part(cells_of(counts[0], begins, grid.bins, middle), deviation)

    right = dict.fromkeys(NAMES, 0)
    exact = figures([part(cells_of(truth[0].astype(int), begins, grid.bins, middle), None)], grid, Fitted())
    for _ in range(60):
        found = figures([told(6.0)], grid, Fitted())
        for name, estimate in found.items():
            true = exact[name]
            if estimate is not None and estimate.interval is not None and true is not None:
                right[name] += estimate.interval[0] <= true.value <= estimate.interval[1]
    for name in ("auroc", "average_precision", "tpr", "base_rate", "brier", "log_loss"):
        assert right[name] >= 54, (name, right[name])
    widths = []
    for deviation in (0.5, 20.0):
        estimate = figures([told(deviation)], grid, Fitted())["auroc"]
        assert estimate is not None
        assert estimate.interval is not None
        widths.append(estimate.interval[1] - estimate.interval[0])
    assert widths[1] > 1.5 * widths[0]


def test_what_might_have_been_told_is_about_what_was() -> None:
    rng = np.random.default_rng(2)
    edges = np.linspace(0, 1, 41)[1:-1]
    begins = agreed_begins(41, None)
    counts = np.stack([np.linspace(50, 400, len(begins)), np.linspace(900, 100, len(begins))], axis=1)
    cells = cells_of(counts.astype(int), begins, 41, middles(begins, edges))
    drawn = [redrawn(cells, 10.0, edges, None, rng) for _ in range(50)]
    positives = [each.total_positives for each in drawn]
    assert np.mean(positives) == pytest.approx(cells.total_positives, rel=0.02)
    assert np.std(positives) > 30  # ten cells' noise alone has 31.6
