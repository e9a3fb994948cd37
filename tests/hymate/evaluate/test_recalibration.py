"""Slope and intercept from sites' sums, against the fit on pooled rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from hymate.evaluate.calibration import calibration_figures
from hymate.evaluate.histograms import count_between, join_small_cells
from hymate.evaluate.recalibration import (
    Fit,
    Kind,
    Sums,
    fit_rows,
    log_odds,
    start_from_cells,
    sums_at,
)
from server.recalibration import EXCHANGES
from tests.hymate.evaluate.hospitals import grid_from, scored

NOTHING = Sums(0.0, (0.0, 0.0), (0.0, 0.0, 0.0))


@settings(max_examples=40, deadline=None)
@example(seed=1, sizes=[40], prevalence=0.625, minimum=5, kind="slope")
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(40, 400), min_size=1, max_size=5),
    prevalence=st.floats(0.1, 0.8),
    minimum=st.sampled_from([1, 5]),
    kind=st.sampled_from(["slope", "intercept"]),
)
def test_a_few_exchanges_give_the_pooled_fit(
    seed: int, sizes: list[int], prevalence: float, minimum: int, kind: Kind
) -> None:
    rng = np.random.default_rng(seed)
    hospitals = [scored(rng, n, prevalence) for n in sizes]
    grid = grid_from(hospitals, 512)
    cells = [join_small_cells(count_between(*each, grid.edges), minimum) for each in hospitals]
    told = [each for each, c in zip(hospitals, cells, strict=True) if c is not None]
    fit = start_from_cells([c for c in cells if c is not None], kind)
    exchanges = 0
    while fit.state == "going" and exchanges < 20:
        exchanges += 1
        fit = fit.after(sum((sums_at(y, log_odds(s), fit.point) for y, s in told), start=NOTHING))
    labels, scores = (np.concatenate([each[i] for each in told]) for i in (0, 1))
    pooled = calibration_figures(labels, scores, np.ones((1, len(labels))))[f"calibration_{kind}"][0]
    if not np.isfinite(pooled):
        return
    assert fit.value == pytest.approx(pooled, abs=1e-6)
    # Of a few dozen stays the fit may lie far out.
    assert exchanges <= (4 if len(labels) >= 400 else EXCHANGES)
    own = fit_rows(labels, scores, kind)
    assert own.value == pytest.approx(pooled, abs=1e-6)
    assert fit.standard_error == pytest.approx(own.standard_error, rel=1e-3)


def test_the_slope_is_that_of_a_plain_logistic_regression() -> None:
    labels, scores = scored(np.random.default_rng(0), 3000, 0.3)
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds(scores)[:, None], labels)
    fit = fit_rows(labels, scores, "slope")
    assert fit.value == pytest.approx(model.coef_[0, 0], abs=1e-5)
    assert fit.point[0] == pytest.approx(model.intercept_[0], abs=1e-5)


def test_two_exchanges_suffice_from_fine_cells() -> None:
    rng = np.random.default_rng(1)
    hospitals = [scored(rng, 2500, 0.2) for _ in range(4)]
    grid = grid_from(hospitals, 512)
    fit = start_from_cells([count_between(*each, grid.edges) for each in hospitals], "slope")
    for _ in range(2):
        fit = fit.after(sum((sums_at(y, log_odds(s), fit.point) for y, s in hospitals), start=NOTHING))
    assert fit.state == "done"


@pytest.mark.parametrize("labels", [np.zeros(20), np.ones(20)])
def test_one_class_has_no_slope(labels: np.ndarray) -> None:
    assert fit_rows(labels, np.linspace(0.1, 0.9, 20), "slope").value is None
    cells = count_between(labels, np.linspace(0.1, 0.9, 20), np.arange(1, 10) / 10)
    assert start_from_cells([cells], "slope").state == "none"


def test_scores_that_part_the_classes_or_are_all_equal_have_no_slope() -> None:
    labels = np.repeat([0.0, 1.0], 10)
    assert fit_rows(labels, np.linspace(0.1, 0.9, 20), "slope").value is None
    assert fit_rows(labels, np.full(20, 0.4), "slope").value is None
    level = fit_rows(labels, np.full(20, 0.4), "intercept").value
    assert level == pytest.approx(-log_odds(np.array([0.4]))[0]), "half are positive"


def test_a_step_too_far_is_taken_back() -> None:
    labels, scores = scored(np.random.default_rng(3), 400, 0.3)
    x = log_odds(scores)
    fit = Fit("slope", (8.0, -6.0))
    for _ in range(30):
        fit = fit.after(sums_at(labels, x, fit.point))
    assert fit.state != "going"
    if fit.state == "done":
        assert fit.value == pytest.approx(fit_rows(labels, scores, "slope").value, abs=1e-6)
