"""How well scores put positives above negatives, for one weighting of the rows or for many at once.

The bootstrap weights every row by how often it was drawn, so one sort serves all resamples. With
weights 1 the figures are scikit-learn's.

Symbols: n rows, B weightings, G distinct scores; TP, FP the weight of positives and negatives with a
score at or above a threshold; P, N their sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NAMES = ("auroc", "average_precision", "auprc_trapezoid", "min_se_ppv")


class Ranking:
    """Rows sorted by score once; figures under any weights.

    labels (n,): 0.0 or 1.0; scores (n,): any finite numbers, ties allowed.
    """

    def __init__(self, labels: Floats, scores: Floats) -> None:
        self._order = np.argsort(-scores, kind="stable")
        descending = scores[self._order]
        self._last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # (G,)
        self._positive = labels[self._order]

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """weights (B, n), not negative -> each of `NAMES` as (B,); NaN where a class has no weight.

        auroc               area under the ROC curve, ties count a half
        average_precision   sum over thresholds of (rise of recall) x precision
        auprc_trapezoid     area under the precision-recall points joined by straight lines, from
                            precision 1 at recall 0: what the STraTS lineage calls AUPRC
        min_se_ppv          max over thresholds of min(recall, precision)
        """
        weights = weights[:, self._order]
        tp = np.cumsum(weights * self._positive, axis=1)[:, self._last]  # (B, G)
        fp = np.cumsum(weights * (1 - self._positive), axis=1)[:, self._last]
        p, n = tp[:, -1:], fp[:, -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            recall, false_rate = tp / p, fp / n
            precision = np.where(tp + fp > 0, tp / (tp + fp), 1.0)
        rise = np.diff(recall, axis=1, prepend=0.0)
        before = np.concatenate([np.ones_like(p), precision[:, :-1]], axis=1)
        width = np.diff(false_rate, axis=1, prepend=0.0)
        height = recall - rise / 2
        found = {
            "auroc": (width * height).sum(axis=1),
            "average_precision": (rise * precision).sum(axis=1),
            "auprc_trapezoid": (rise * (precision + before) / 2).sum(axis=1),
            "min_se_ppv": np.minimum(recall, precision).max(axis=1),
        }
        undefined = ((p == 0) | (n == 0))[:, 0]
        return {name: np.where(undefined, np.nan, values) for name, values in found.items()}
