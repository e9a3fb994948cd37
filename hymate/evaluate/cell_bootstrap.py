"""Intervals by drawing cells anew, for figures whose variance has no closed form.

Each site's cells and classes are the categories of a multinomial with as many stays as it has: the
nonparametric bootstrap of its binned stays, sites taken as they are. Average precision, min(Se, +P) and
ECE have theirs from here; shares have Wilson's, the AUROC DeLong's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.calibration import BINS as TENTHS
from hymate.evaluate.estimates import CONFIDENCE, Estimate
from hymate.evaluate.histograms import BINS, Bounded, ScoreCells
from hymate.evaluate.reliability import tenth_of

Floats = NDArray[np.float64]

DRAWS = 500
AT_ONCE = 50  # bounds memory, does not change the draws


def drawn_figures(
    sites: Sequence[ScoreCells], seed: int, bins: int = BINS, draws: int = DRAWS
) -> dict[str, Floats]:
    """average_precision, min_se_ppv and, where the cells have sums, ece in each draw; (draws,) each.

    A draw that lost a class has NaN.
    """
    rng = np.random.default_rng(seed)
    where = np.concatenate([_spread_matrix(cells, bins) for cells in sites])  # (C, K), highest bin first
    with_sums = all(cells.score_sum is not None for cells in sites)
    parts: list[dict[str, Floats]] = []
    for begin in range(0, draws, AT_ONCE):
        count = min(AT_ONCE, draws - begin)
        drawn = [_draw(rng, cells, count) for cells in sites]
        positives = np.concatenate([each[0] for each in drawn], axis=1)  # (B, C)
        negatives = np.concatenate([each[1] for each in drawn], axis=1)
        found = _ranking(positives @ where, negatives @ where)
        if with_sums:
            found["ece"] = _ece(positives, negatives, sites)
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def with_interval(bounded: Bounded, drawn: Floats, centre: float | None = None) -> Estimate:
    """The figure with its bound and the percentile interval of the draws, widened by the bound.

    Args:
        centre: the draws' own figure, where the one here is known better than from cells.
    """
    kept = drawn[np.isfinite(drawn)]
    bound = (bounded.lower, bounded.upper)
    if not kept.size:
        return Estimate(bounded.estimate, bound)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    middle = bounded.estimate if centre is None else centre
    low = min(bounded.lower + float(low) - middle, bounded.lower)
    high = max(bounded.upper + float(high) - middle, bounded.upper)
    return Estimate(bounded.estimate, bound, (max(0.0, low), min(1.0, high)))


def _draw(rng: np.random.Generator, cells: ScoreCells, count: int) -> tuple[Floats, Floats]:
    counts = np.concatenate([cells.positives, cells.negatives])
    total = int(counts.sum())
    drawn = rng.multinomial(total, counts / max(total, 1), size=count).astype(np.float64)
    return drawn[:, : len(cells.low)], drawn[:, len(cells.low) :]


def _spread_matrix(cells: ScoreCells, bins: int) -> Floats:
    """(C, K): the share of each cell in each bin, highest bin first."""
    bin_ = np.arange(bins)[None, :]
    inside = (bin_ >= cells.low[:, None]) & (bin_ <= cells.high[:, None])
    return np.asarray((inside / (cells.high - cells.low + 1)[:, None])[:, ::-1])


def _ranking(p: Floats, n: Floats) -> dict[str, Floats]:
    """As `histograms.average_precision` and `operating_point.min_se_ppv` estimate, a draw a row."""
    tp, fp = np.cumsum(p, axis=1), np.cumsum(n, axis=1)
    total, others = tp[:, -1], fp[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t, s = tp - p, tp - p + fp - n
        r = 1 + n / p
        curved = np.where(s > 0, (t - s / r) / r * np.log((s + r * p) / s), 0.0)
        gained = np.where(p > 1e-12, p / r + curved, 0.0).sum(axis=1) / total
        precision = np.where(tp > 0, tp / (tp + fp), 0.0)
        balanced = np.minimum(tp / total[:, None], precision).max(axis=1)
    undefined = (total == 0) | (others == 0)
    return {
        "average_precision": np.where(undefined, np.nan, gained),
        "min_se_ppv": np.where(undefined, np.nan, balanced),
    }


def _ece(p: Floats, n: Floats, sites: Sequence[ScoreCells]) -> Floats:
    """A drawn stay has its cell's mean score."""
    sums = np.concatenate([cells.score_sum for cells in sites if cells.score_sum is not None])
    counts = np.concatenate([cells.positives + cells.negatives for cells in sites])
    mean = sums / counts
    member = (tenth_of(mean)[:, None] == np.arange(TENTHS)).astype(np.float64)
    gap = ((p + n) * mean - p) @ member
    error: Floats = np.abs(gap).sum(axis=1) / (p + n).sum(axis=1)
    return error
