"""Measures of one site's scores, where scores and labels lie side by side.

Only the site itself can call these on patients; what leaves it is in `hymate.evaluate.histograms`.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


class Sums(TypedDict):
    """Over stays, by the names and in the order in which they travel: scores, and each stay's log loss and
    (score - label)^2, with the squares of both."""

    log_loss_sum: float
    squared_error_sum: float
    score_sum: float
    log_loss_squares: float
    squared_error_squares: float


SUMS = tuple(Sums.__annotations__)


def auroc(labels: Scores, scores: Scores) -> float | None:
    """Area under the ROC curve; None (never 0.5) where one class is missing."""
    if not _both_classes(labels):
        return None
    # Only here: scikit-learn takes a second to import, and a site imports anew for every message.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def average_precision(labels: Scores, scores: Scores) -> float | None:
    """Average precision (step-wise area under precision-recall); None where one class is missing."""
    if not _both_classes(labels):
        return None
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores))


def log_losses(labels: Scores, scores: Scores) -> Scores:
    """Negative log likelihood of each stay; probabilities are kept 1e-7 off 0 and 1."""
    p = np.clip(scores, 1e-7, 1 - 1e-7)
    return np.asarray(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


def log_loss_sum(labels: Scores, scores: Scores) -> float:
    """Sum over stays of the negative log likelihood."""
    return float(log_losses(labels, scores).sum())


def sums_over(labels: Scores, scores: Scores) -> Sums:
    """Of these stays, (n,) each."""
    losses, errors = log_losses(labels, scores), np.square(scores - labels)
    return {
        "log_loss_sum": float(losses.sum()),
        "squared_error_sum": float(errors.sum()),
        "score_sum": float(scores.sum()),
        "log_loss_squares": float(np.square(losses).sum()),
        "squared_error_squares": float(np.square(errors).sum()),
    }


def _both_classes(labels: Scores) -> bool:
    return bool(labels.size) and 0 < float(labels.sum()) < labels.size
