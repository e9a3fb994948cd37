"""Predicted against observed risk in ten bins of equal width, and ECE, from cells with sums of scores.

Where no cell reaches across a tenth, both are those of `hymate.evaluate.calibration` on pooled rows. A cell
that does is put where its mean score lies; what that may cost the ECE is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.calibration import BINS as TENTHS
from hymate.evaluate.estimates import wilson
from hymate.evaluate.histograms import Bounded, ScoreCells

Floats = NDArray[np.float64]

_INNER = np.arange(1, TENTHS) / TENTHS


@dataclass(frozen=True)
class ReliabilityBin:
    """Stays predicted between `low` and `high`: mean prediction, share of positives and its interval."""

    low: float
    high: float
    n: int
    positives: int
    predicted: float
    observed: float
    interval: tuple[float, float]


def reliability_bins(cells: ScoreCells) -> list[ReliabilityBin]:
    """The bins that hold stays; none where the cells have no sums."""
    if cells.score_sum is None:
        return []
    place = tenth_of(cells.score_sum / _counts(cells))
    found = []
    for tenth in range(TENTHS):
        here = place == tenth
        n, positives = int(_counts(cells)[here].sum()), int(cells.positives[here].sum())
        if n:
            predicted = float(cells.score_sum[here].sum()) / n
            found.append(
                ReliabilityBin(
                    tenth / TENTHS,
                    (tenth + 1) / TENTHS,
                    n,
                    positives,
                    predicted,
                    positives / n,
                    wilson(positives, n),
                )
            )
    return found


def expected_calibration_error(cells: ScoreCells, edges: Floats) -> Bounded | None:
    """ECE and its proven interval; None without stays or sums.

    Moving a part of a cell to the neighbouring bin moves a gap of at most its sum of |score - label|, out of
    one bin and into another.
    """
    if cells.score_sum is None or not len(cells.low):
        return None
    counts = _counts(cells)
    total = float(counts.sum())
    place = tenth_of(cells.score_sum / counts)
    gap = np.bincount(place, cells.score_sum - cells.positives, minlength=TENTHS)
    estimate = float(np.abs(gap).sum()) / total
    bounds = np.concatenate([[0.0], edges, [1.0]])
    low, high = bounds[cells.low], bounds[cells.high + 1]
    across = np.searchsorted(_INNER, low, side="right") != np.searchsorted(_INNER, high, side="left")
    error = np.minimum(
        cells.positives * (1 - low) + cells.negatives * high, cells.positives + cells.score_sum
    )
    reach = 2 * float(error[across].sum()) / total
    return Bounded(estimate, max(0.0, estimate - reach), min(1.0, estimate + reach))


def _counts(cells: ScoreCells) -> NDArray[np.int64]:
    return cells.positives + cells.negatives


def tenth_of(scores: Floats) -> NDArray[np.int64]:
    """Which bin each mean score lies in."""
    # A mean of equal scores may round to just below them.
    return np.searchsorted(_INNER, scores + 1e-12, side="right")
