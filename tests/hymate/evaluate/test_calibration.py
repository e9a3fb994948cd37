"""Calibration figures: against scikit-learn, against planted distortions, and where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from hymate.evaluate.calibration import calibration_figures

RNG = np.random.default_rng(0)
LOG_ODDS = RNG.normal(-1.0, 1.5, 20_000)
TRUE = 1 / (1 + np.exp(-LOG_ODDS))
LABELS = (RNG.random(len(TRUE)) < TRUE).astype(np.float64)


def figures(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    rows = np.ones((1, len(labels))) if weights is None else weights[None]
    found = calibration_figures(labels, probabilities, rows)
    return {name: float(values[0]) for name, values in found.items()}


def test_true_probabilities_are_calibrated() -> None:
    found = figures(LABELS, TRUE)
    assert found["calibration_slope"] == pytest.approx(1.0, abs=0.05)
    assert found["calibration_intercept"] == pytest.approx(0.0, abs=0.05)
    assert found["ece"] < 0.01
    assert found["brier"] == pytest.approx(brier_score_loss(LABELS, TRUE))


def test_planted_distortions_are_found() -> None:
    """Log odds doubled: slope 1/2. Log odds raised by 1: intercept -1."""
    extreme = figures(LABELS, 1 / (1 + np.exp(-2 * LOG_ODDS)))
    assert extreme["calibration_slope"] == pytest.approx(0.5, abs=0.03)
    high = figures(LABELS, 1 / (1 + np.exp(-(LOG_ODDS + 1))))
    assert high["calibration_slope"] == pytest.approx(1.0, abs=0.05)
    assert high["calibration_intercept"] == pytest.approx(-1.0, abs=0.05)
    assert high["ece"] > 0.1


def test_slope_equals_scikit_learn_under_weights() -> None:
    y, p = LABELS[:500], TRUE[:500] ** 2
    weights = RNG.integers(0, 3, 500).astype(np.float64)
    x = (np.log(p) - np.log1p(-p))[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(x, y, sample_weight=weights)
    assert figures(y, p, weights)["calibration_slope"] == pytest.approx(fitted.coef_[0, 0], rel=1e-5)


def test_intercept_makes_the_mean_right() -> None:
    """With slope 1, the recalibrated probabilities have the labels' mean: the score equation."""
    y, p = LABELS[:300], TRUE[:300] ** 1.5
    shift = figures(y, p)["calibration_intercept"]
    moved = 1 / (1 + np.exp(-(np.log(p) - np.log1p(-p) + shift)))
    assert moved.mean() == pytest.approx(y.mean(), abs=1e-9)


def test_ece_by_hand() -> None:
    """Bins [0, .1) and [.9, 1]: |0.05 - 1/2| x 2/3 + |1 - 1| x 1/3; the edge 1.0 is in the last bin."""
    found = figures(np.array([0.0, 1.0, 1.0]), np.array([0.05, 0.05, 1.0]))
    assert found["ece"] == pytest.approx(0.45 * 2 / 3)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.8, 0.9]),  # a score parts the classes: no finite slope
        ([0.0, 1.0, 1.0, 0.0], [0.3, 0.3, 0.3, 0.3]),  # one score for all
        ([1.0, 1.0, 1.0], [0.2, 0.3, 0.9]),  # one class
    ],
)
def test_no_slope_where_there_is_none(labels: list[float], probabilities: list[float]) -> None:
    found = figures(np.array(labels), np.array(probabilities))
    assert np.isnan(found["calibration_slope"])
    assert np.isfinite(found["brier"])
    assert np.isfinite(found["ece"])


def test_certain_and_wrong_is_still_a_number() -> None:
    found = figures(np.array([0.0, 1.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.4, 0.6, 0.2]))
    assert all(np.isfinite(value) for value in found.values())
