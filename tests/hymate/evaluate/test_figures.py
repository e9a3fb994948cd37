"""Reports: intervals that cover, by subject; classes that are missing; regression."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hymate.evaluate.bootstrap import AT_ONCE, BootstrapSettings, resampled_weights, with_intervals
from hymate.evaluate.figures import BINARY, binary_report, regression_report
from hymate.evaluate.ranking import Ranking

FEW = BootstrapSettings(resamples=200)


def sample(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = (rng.random(count) < 0.3).astype(np.float64)
    return labels, 1 / (1 + np.exp(-(labels + rng.normal(0, 1, count))))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """AUROC of two unit normals 1 apart is Phi(1 / sqrt 2) = 0.7602; 100 data sets, 90 % intervals."""
    rng, inside = np.random.default_rng(1), 0
    settings = BootstrapSettings(resamples=200, confidence=0.9)
    for _ in range(100):
        labels, scores = sample(rng, 150)
        figure = with_intervals(Ranking(labels, scores).figures, np.arange(150), settings)["auroc"]
        assert figure.lower is not None
        assert figure.upper is not None
        inside += figure.lower <= 0.7602 <= figure.upper
    assert 80 <= inside <= 98


def test_a_subjects_stays_are_drawn_together() -> None:
    subjects = np.array([7, 3, 7, 7, 5])
    weights = np.concatenate(list(resampled_weights(subjects, BootstrapSettings(resamples=AT_ONCE + 3))))
    assert weights.shape == (AT_ONCE + 3, 5)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 3]).all()
    assert (weights[:, [0, 1, 4]].sum(axis=1) == 3).all()  # as many subjects as there are
    assert len({tuple(row) for row in weights}) > 5


def test_repeated_stays_widen_the_interval() -> None:
    """Each stay ten times under its subject says no more than once; as ten subjects it would."""
    labels, scores = sample(np.random.default_rng(2), 80)
    many, scores_many, subject = np.tile(labels, 10), np.tile(scores, 10), np.tile(np.arange(80), 10)

    def width(report_subjects: np.ndarray) -> float:
        figure = binary_report(many, scores_many, report_subjects, FEW).figures["auroc"]
        assert figure.upper is not None
        assert figure.lower is not None
        return figure.upper - figure.lower

    assert width(subject) > 2 * width(np.arange(800))


def test_the_same_seed_gives_the_same_interval() -> None:
    labels, scores = sample(np.random.default_rng(3), 60)
    first, again, other = (
        binary_report(labels, scores, np.arange(60), BootstrapSettings(100, seed=seed)).to_json()
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["auroc"]["value"] == other["auroc"]["value"]
    assert first["auroc"]["lower"] != other["auroc"]["lower"]


@pytest.mark.parametrize(("label", "word"), [(0.0, "negative"), (1.0, "positive")])
def test_one_class_is_said_and_never_a_half(label: float, word: str) -> None:
    report = binary_report(np.full(9, label), np.linspace(0.1, 0.9, 9), np.arange(9), FEW)
    assert word in report.undefined
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    for name in ("auroc", "average_precision", "auprc_trapezoid", "min_se_ppv", "calibration_slope"):
        assert content[name] == {"value": None, "lower": None, "upper": None}, name
    assert content["brier"]["value"] is not None
    assert content["positives"] == (9 if label else 0)


def test_no_stay_at_all() -> None:
    nothing = np.zeros(0)
    for report in (
        binary_report(nothing, nothing, nothing.astype(np.int64), FEW),
        regression_report(nothing, nothing, nothing.astype(np.int64), FEW),
    ):
        assert report.stays == 0
        assert "no labelled stay" in report.undefined
        assert all(figure.value is None for figure in report.figures.values())


def test_without_resamples_there_are_values_only() -> None:
    labels, scores = sample(np.random.default_rng(3), 60)
    report = binary_report(labels, scores, np.arange(60), BootstrapSettings(resamples=0))
    assert set(report.figures) == set(BINARY)
    assert all(f.value is not None and f.lower is None for f in report.figures.values())


def test_resamples_without_a_figure_do_not_count() -> None:
    """One positive among three: many resamples have none of it, and the interval is of the others."""
    report = binary_report(np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.5, 0.95]), np.arange(3), FEW)
    figure = report.figures["auroc"]
    assert (figure.value, figure.lower, figure.upper) == (0.5, 0.0, 1.0)


def test_regression_by_hand() -> None:
    report = regression_report(
        np.array([1.0, 2.0, 6.0]), np.array([2.0, 2.0, 4.0]), np.arange(3), BootstrapSettings(resamples=0)
    )
    values = {name: figure.value for name, figure in report.figures.items()}
    assert values == pytest.approx({"mae": 1.0, "rmse": (5 / 3) ** 0.5, "r2": 1 - 5 / 14})
    assert "positives" not in report.to_json()


def test_regression_on_equal_labels_has_no_r2() -> None:
    report = regression_report(np.full(4, 3.1), np.array([3.0, 3.2, 3.0, 3.0]), np.arange(4), FEW)
    assert report.figures["r2"].value is None
    assert "equal" in report.undefined
    assert report.figures["mae"].value == pytest.approx(0.1)


def test_intervals_are_quantiles_of_the_resampled_figure() -> None:
    """The mean of 0..9 under resampling: interval and quantiles computed another way."""
    rows = np.arange(10.0)
    settings = BootstrapSettings(resamples=500, confidence=0.8)

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": weights @ rows / weights.sum(axis=1)}

    found = with_intervals(mean, np.arange(10), settings)["mean"]
    drawn = np.sort(
        [float(w @ rows / 10) for part in resampled_weights(np.arange(10), settings) for w in part]
    )
    assert found.value == 4.5
    assert (found.lower, found.upper) == pytest.approx((np.quantile(drawn, 0.1), np.quantile(drawn, 0.9)))
