"""All figures of one set of predictions, as a report or a person wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate import calibration, ranking
from hymate.evaluate.bootstrap import BootstrapSettings, Figure, with_intervals

Floats = NDArray[np.float64]

BINARY = (*ranking.NAMES, *calibration.NAMES)
REGRESSION = ("mae", "rmse", "r2")

TITLES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "auprc_trapezoid": "area under PR, trapezoidal",
    "min_se_ppv": "min(Se, +P)",
    "brier": "Brier score",
    "ece": f"ECE, {calibration.BINS} equal bins",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R squared",
}


@dataclass(frozen=True)
class Report:
    """Figures of one set of predictions.

    positives: None for regression. undefined says why figures have no value ("" where all have one).
    """

    stays: int
    subjects: int
    positives: int | None
    figures: Mapping[str, Figure]
    bootstrap: BootstrapSettings
    undefined: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: each figure as {value, lower, upper}, null where it is not defined."""
        return {
            "stays": self.stays,
            "subjects": self.subjects,
            **({} if self.positives is None else {"positives": self.positives}),
            **{name: asdict(figure) for name, figure in self.figures.items()},
            "undefined": self.undefined,
            "bootstrap": {**asdict(self.bootstrap), "by": "subject", "interval": "percentile"},
            **({} if self.positives is None else {"ece_bins": {"count": calibration.BINS, "width": "equal"}}),
        }


def binary_report(
    labels: Floats, probabilities: Floats, subjects: NDArray[np.int64], bootstrap: BootstrapSettings
) -> Report:
    """labels 0.0 or 1.0, probabilities in [0, 1], subjects: all (n,).

    Where a class is missing, what compares classes has no value (never 0.5), and `undefined` says so.
    """
    positives = int(labels.sum())
    if not labels.size:
        return Report(0, 0, 0, dict.fromkeys(BINARY, Figure(None)), bootstrap, "there is no labelled stay")
    order = ranking.Ranking(labels, probabilities)

    def measure(weights: Floats) -> dict[str, Floats]:
        return order.figures(weights) | calibration.calibration_figures(labels, probabilities, weights)

    figures = with_intervals(measure, subjects, bootstrap)
    undefined = ""
    if positives in (0, len(labels)):
        which = "positive" if positives else "negative"
        undefined = f"all {len(labels)} stays are {which}: nothing to tell apart"
    elif any(figure.value is None for figure in figures.values()):
        undefined = "one score parts the classes, or all scores are equal: no calibration slope"
    return Report(len(labels), len(np.unique(subjects)), positives, figures, bootstrap, undefined)


def regression_report(
    labels: Floats, predictions: Floats, subjects: NDArray[np.int64], bootstrap: BootstrapSettings
) -> Report:
    """labels and predictions in the label's unit, subjects: all (n,). R squared compares with the mean of
    the labels here; it has no value where these are all equal."""
    if not labels.size:
        empty = dict.fromkeys(REGRESSION, Figure(None))
        return Report(0, 0, None, empty, bootstrap, "there is no labelled stay")
    error = predictions - labels

    def measure(weights: Floats) -> dict[str, Floats]:
        share = weights / weights.sum(axis=1, keepdims=True)
        squared = share @ np.square(error)
        mean = share @ labels
        spread = share @ np.square(labels) - np.square(mean)
        with np.errstate(invalid="ignore", divide="ignore"):
            explained = np.where(spread > 1e-12 * np.square(mean) + 1e-30, 1 - squared / spread, np.nan)
        return {"mae": share @ np.abs(error), "rmse": np.sqrt(squared), "r2": explained}

    figures = with_intervals(measure, subjects, bootstrap)
    undefined = "" if figures["r2"].value is not None else "all labels are equal: no R squared"
    return Report(len(labels), len(np.unique(subjects)), None, figures, bootstrap, undefined)
