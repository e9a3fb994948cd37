"""Figures from what sites may tell, against the same figures of pooled scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    roc_auc_score,
)

from hymate.evaluate.calibration import calibration_figures
from hymate.evaluate.delong import auroc_and_variance, variance_from_cells
from hymate.evaluate.estimates import Z
from hymate.evaluate.federated import NAMES, Fitted, Grid, Part, figures, undefined
from hymate.evaluate.histograms import (
    ScoreCells,
    auroc,
    auroc_over_sites,
    average_precision,
    count_between,
    join_small_cells,
    pool,
)
from hymate.evaluate.operating_point import threshold_on
from hymate.evaluate.ranking import Ranking
from hymate.evaluate.reliability import reliability_bins
from tests.hymate.evaluate.hospitals import grid_from, part_of, scored

BOUNDED = ("auroc", "average_precision", "min_se_ppv", "ece", "tpr", "fpr", "ppv", "npv", "specificity")


def pooled_truth(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    tn, fp, fn, tp = confusion_matrix(labels, scores >= threshold, labels=[0, 1]).ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {
            "tpr": tp / (tp + fn),
            "fpr": fp / (fp + tn),
            "ppv": np.float64(tp) / (tp + fp),
            "npv": np.float64(tn) / (tn + fn),
            "specificity": tn / (fp + tn),
        }
    ones = np.ones((1, len(labels)))
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
        "min_se_ppv": float(Ranking(labels, scores).figures(ones)["min_se_ppv"][0]),
        "ece": float(calibration_figures(labels, scores, ones)["ece"][0]),
        **{name: float(share) for name, share in shares.items()},
    }


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    sizes=st.lists(st.integers(12, 300), min_size=1, max_size=5),
    prevalence=st.floats(0.02, 0.9),
    bins=st.sampled_from([16, 64, 512, 1024]),
    minimum=st.sampled_from([1, 3, 5, 10]),
    ties=st.sampled_from([None, 1, 2]),
    threshold=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_every_figure_lies_within_its_printed_bound(
    seed: int,
    sizes: list[int],
    prevalence: float,
    bins: int,
    minimum: int,
    ties: int | None,
    threshold: float,
) -> None:
    rng = np.random.default_rng(seed)
    grid = grid_from([scored(rng, n, prevalence, ties) for n in sizes], bins, threshold, minimum)
    assert len(grid.edges) < bins
    hospitals = [scored(rng, n, prevalence, ties) for n in sizes]
    told = [(part, each) for each in hospitals if (part := part_of(*each, grid, minimum)) is not None]
    if not told:
        return
    labels, scores = (np.concatenate([each[i] for _, each in told]) for i in (0, 1))
    found = figures([part for part, _ in told], grid, Fitted(), draws=False)
    truth = pooled_truth(labels, scores, threshold)
    for name in BOUNDED:
        figure = found[name]
        if figure is None:
            assert not 0 < truth.get(name, 0) < 1, name
            continue
        assert figure.bound[0] - 1e-9 <= figure.value <= figure.bound[1] + 1e-9, name
        if np.isfinite(truth[name]):
            assert figure.bound[0] - 1e-9 <= truth[name] <= figure.bound[1] + 1e-9, name
        if figure.interval is not None:
            assert (
                figure.interval[0] - 1e-9 <= figure.bound[0] <= figure.bound[1] <= figure.interval[1] + 1e-9
            )
    for name, exact in (
        ("brier", brier_score_loss(labels, scores)),
        ("log_loss", log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7), labels=[0, 1])),
        ("base_rate", labels.mean()),
        ("mean_predicted", scores.mean()),
    ):
        figure = found[name]
        assert figure is not None
        assert figure.value == pytest.approx(exact, abs=1e-12)
    risk = np.clip(scores, 1e-7, 1 - 1e-7)
    for name, each in (
        ("brier", np.square(scores - labels)),
        ("log_loss", -np.log(np.where(labels > 0.5, risk, 1 - risk))),
    ):
        figure = found[name]
        assert figure is not None
        assert figure.interval is not None
        reach = Z * each.std(ddof=1) / np.sqrt(len(each))
        assert figure.interval[1] - figure.interval[0] == pytest.approx(2 * reach, rel=1e-6, abs=1e-6), name


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    sizes=st.lists(st.integers(10, 60), min_size=2, max_size=4),
    bins=st.integers(2, 9),
)
def test_precision_bounds_hold_for_ties_across_wide_cells(seed: int, sizes: list[int], bins: int) -> None:
    """Cells of any width that overlap any way, and scores that tie across sites."""
    rng = np.random.default_rng(seed)
    cells, labels, scores = [], [], []
    for n in sizes:
        y = (rng.random(n) < 0.3).astype(np.float64)
        s = rng.integers(0, 2 * bins, n) / (2 * bins)
        counted = count_between(y, s, np.arange(1, bins) / bins)
        joined = join_small_cells(counted, int(rng.integers(1, 8)))
        if joined is not None:
            cells.append(joined)
            labels.append(y)
            scores.append(s)
    y, s = np.concatenate([[], *labels]), np.concatenate([[], *scores])
    if not 0 < y.sum() < len(y):
        return
    bounded = average_precision(pool(cells), bins)
    assert bounded is not None
    assert bounded.lower - 1e-12 <= average_precision_score(y, s) <= bounded.upper + 1e-12


def test_tied_positives_may_do_better_than_each_at_its_highest() -> None:
    # One cell spans bins 0 to 3, another is bin 2; a negative lies above. Both positives at bin 2 give 2/3.
    wide = ScoreCells(*np.array([[0, 3, 1, 0]]).T)
    narrow = ScoreCells(*np.array([[2, 2, 1, 0], [5, 5, 0, 1]]).T)
    bounded = average_precision(pool([wide, narrow]), 8)
    assert bounded is not None
    assert bounded.upper == pytest.approx(2 / 3)
    assert bounded.lower == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("prevalence", [0.02, 0.15, 0.5])
def test_ten_thousand_stays_and_512_bins_leave_less_than_two_thousandths_open(prevalence: float) -> None:
    rng = np.random.default_rng(3)
    grid = grid_from([scored(rng, 400, prevalence) for _ in range(5)], 512)
    hospitals = [scored(rng, 2000, prevalence) for _ in range(5)]
    cells = [count_between(*each, grid.edges) for each in hospitals]
    labels, scores = (np.concatenate([each[i] for each in hospitals]) for i in (0, 1))
    bounded = auroc(pool(cells), grid.bins)
    assert bounded is not None
    assert (bounded.upper - bounded.lower) / 2 <= 0.002
    assert bounded.lower <= roc_auc_score(labels, scores) <= bounded.upper
    # The printed bound itself: half of sum p_k n_k over P N.
    whole = pool(cells)
    same = float(whole.positives @ whole.negatives) / (whole.total_positives * whole.total_negatives)
    assert (bounded.upper - bounded.lower) / 2 == pytest.approx(same / 2)
    equal = auroc(pool([count_between(*each, np.arange(1, 512) / 512) for each in hospitals]), 512)
    assert equal is not None
    if prevalence == 0.02:  # scores crowd near 0: this is why the edges are agreed on
        assert (equal.upper - equal.lower) > 2 * (bounded.upper - bounded.lower)


def test_exact_figures_of_sites_narrow_the_bound() -> None:
    rng = np.random.default_rng(5)
    hospitals = [scored(rng, 600, 0.2) for _ in range(3)]
    grid = grid_from(hospitals, 512)
    parts = [part for each in hospitals if (part := part_of(*each, grid, 5)) is not None]
    with_own = auroc_over_sites([(part.cells, part.auroc) for part in parts], grid.bins)
    without = auroc_over_sites([(part.cells, None) for part in parts], grid.bins)
    assert with_own is not None
    assert without is not None
    labels, scores = (np.concatenate([each[i] for each in hospitals]) for i in (0, 1))
    assert with_own.lower <= roc_auc_score(labels, scores) <= with_own.upper
    assert with_own.upper - with_own.lower < 0.85 * (without.upper - without.lower)
    alone = auroc_over_sites([(parts[0].cells, parts[0].auroc)], grid.bins)
    assert alone is not None
    assert alone.lower == pytest.approx(roc_auc_score(*hospitals[0]), abs=1e-12) == alone.upper


def test_variance_from_cells_is_delongs() -> None:
    rng = np.random.default_rng(1)
    labels, scores = scored(rng, 3000, 0.2)
    exact = auroc_and_variance(labels, scores, np.arange(3000))
    assert exact is not None
    # DeLong by the definition, pair by pair.
    wins = (scores[labels > 0][:, None] > scores[labels < 1][None, :]).astype(float)
    v = wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1]
    assert exact == (pytest.approx(roc_auc_score(labels, scores)), pytest.approx(v))
    grid = grid_from([(labels, scores)], 512)
    assert variance_from_cells(count_between(labels, scores, grid.edges), grid.bins) == pytest.approx(
        v, rel=0.01
    )


def test_stays_of_one_subject_count_together() -> None:
    rng = np.random.default_rng(2)
    labels, scores = scored(rng, 400, 0.3)
    once = auroc_and_variance(labels, scores, np.arange(400))
    twice = auroc_and_variance(np.tile(labels, 2), np.tile(scores, 2), np.tile(np.arange(400), 2))
    assert once is not None
    assert twice is not None
    assert twice[0] == pytest.approx(once[0])
    assert twice[1] == pytest.approx(once[1], rel=0.02), "the same people again say nothing new"


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_site_of_one_class_has_no_auroc_and_a_reason(label: float) -> None:
    labels, scores = np.full(40, label), np.linspace(0.1, 0.9, 40)
    grid = Grid(np.arange(1, 10) / 10, 0.5)
    part = part_of(labels, scores, grid)
    assert part is not None
    found = figures([part], grid, Fitted())
    assert found["auroc"] is None
    assert found["average_precision"] is None
    assert found["tpr" if label == 0 else "fpr"] is None
    assert "nothing to tell apart" in undefined([part])
    for name, figure in found.items():
        if figure is not None:
            numbers = [figure.value, *figure.bound, *(figure.interval or ())]
            assert np.isfinite(numbers).all(), name
    assert dict.fromkeys(NAMES) == figures([], grid, Fitted())


def test_scores_that_part_the_classes_have_an_interval_short_of_certainty() -> None:
    labels, scores = np.repeat([0.0, 1.0], 30), np.linspace(0.01, 0.99, 60)
    part = part_of(labels, scores, Grid(np.arange(1, 100) / 100, 0.5))
    assert part is not None
    figure = figures([part], Grid(np.arange(1, 100) / 100, 0.5), Fitted())["auroc"]
    assert figure is not None
    assert figure.value == 1.0
    assert figure.interval is not None
    assert 0.8 < figure.interval[0] < 1.0


def test_intervals_cover_in_repeated_samples() -> None:
    """Nominal 95 %: AUROC, average precision, min(Se, +P), Brier, TPR and PPV of 100 samples of 4 sites."""
    rng = np.random.default_rng(11)
    labels, scores = scored(rng, 200_000, 0.2)
    grid = grid_from([(labels[:5000], scores[:5000])], 64, 0.25)
    truth = pooled_truth(labels, scores, 0.25) | {"brier": float(brier_score_loss(labels, scores))}
    names = ("auroc", "average_precision", "min_se_ppv", "brier", "tpr", "ppv")
    covered = dict.fromkeys(names, 0)
    for _ in range(100):
        rows = rng.integers(0, len(labels), (4, 150))
        parts = [part for each in rows if (part := part_of(labels[each], scores[each], grid)) is not None]
        found = figures(parts, grid, Fitted(), draws=100)
        for name in names:
            figure = found[name]
            assert figure is not None
            assert figure.interval is not None
            covered[name] += figure.interval[0] <= truth[name] <= figure.interval[1]
    for name, times in covered.items():
        assert times >= 90, (name, times)  # 2.3 standard errors below 95 %


def test_the_reliability_table_is_the_pooled_one_at_edges() -> None:
    rng = np.random.default_rng(9)
    hospitals = [scored(rng, 500, 0.4) for _ in range(3)]
    grid = grid_from(hospitals, 256)
    parts: list[Part] = [part for each in hospitals if (part := part_of(*each, grid)) is not None]
    labels, scores = (np.concatenate([each[i] for each in hospitals]) for i in (0, 1))
    for row in reliability_bins(pool([part.cells for part in parts])):
        here = (scores >= row.low) & (scores < row.high)
        assert row.n == here.sum()
        assert row.positives == labels[here].sum()
        assert row.predicted == pytest.approx(scores[here].mean())
    found = figures(parts, grid, Fitted(), draws=False)["ece"]
    assert found is not None
    exact = calibration_figures(labels, scores, np.ones((1, len(labels))))["ece"][0]
    assert found.bound == (pytest.approx(exact), pytest.approx(exact))


@pytest.mark.parametrize(("rule", "target"), [("sensitivity", 0.8), ("specificity", 0.9), ("youden", None)])
def test_the_operating_point_does_on_tuning_what_it_should(rule: str, target: float | None) -> None:
    from hymate.evaluate.edges import first_edges

    rng = np.random.default_rng(4)
    labels, scores = scored(rng, 4000, 0.3)
    cells = count_between(labels, scores, first_edges())
    threshold = threshold_on(cells, rule, target)  # type: ignore[arg-type]
    assert threshold is not None
    chosen = scores >= threshold
    se, sp = chosen[labels > 0].mean(), 1 - chosen[labels < 1].mean()
    if rule == "sensitivity":
        assert 0.8 <= se < 0.82
    elif rule == "specificity":
        assert 0.9 <= sp < 0.92
    else:
        best = max((scores[labels > 0] >= t).mean() - (scores[labels < 1] >= t).mean() for t in first_edges())
        assert se + sp - 1 == pytest.approx(best)
    assert threshold_on(count_between(np.zeros(9), np.full(9, 0.5), first_edges()), "youden", None) is None
