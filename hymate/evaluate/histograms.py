"""AUROC and average precision of many sites from counts per interval of score.

A site never sends a patient's score. It sends, per interval of score, how many positives and how
many negatives fell there; neighbouring intervals are joined until no count is smaller than the
site's minimum. The coordinator pools these *cells* as they are: cells of two sites may overlap in
part, so every figure comes with a proven bound.

Symbols: K bins of equal width on [0, 1]; a cell spans bins low..high and holds p positives and n
negatives; P, N their sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 512

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ScoreCells:
    """Positives and negatives per interval of score.

    low, high: (C,) first and last bin of each cell, 0..K-1, both inclusive.
    positives, negatives: (C,) stays of each class whose score fell there.
    """

    low: Counts
    high: Counts
    positives: Counts
    negatives: Counts

    @property
    def total_positives(self) -> int:
        return int(self.positives.sum())

    @property
    def total_negatives(self) -> int:
        return int(self.negatives.sum())


@dataclass(frozen=True)
class Bounded:
    """An estimate, and the interval that provably holds the value computed from pooled scores."""

    estimate: float
    lower: float
    upper: float


def count_scores(labels: NDArray[np.float64], scores: NDArray[np.float64], bins: int = BINS) -> ScoreCells:
    """Cells of one bin each for scores in [0, 1]; empty bins are left out."""
    bin_of = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    positive = labels > 0.5
    p = np.bincount(bin_of[positive], minlength=bins)
    n = np.bincount(bin_of[~positive], minlength=bins)
    used = np.flatnonzero(p + n)
    return ScoreCells(used, used.copy(), p[used], n[used])


def join_small_cells(cells: ScoreCells, minimum: int) -> ScoreCells | None:
    """Join neighbours until every count is 0 or at least `minimum`.

    None where even one single cell would break the rule: the site then sends nothing.
    """
    joined: list[tuple[int, int, int, int]] = []
    for cell in zip(cells.low, cells.high, cells.positives, cells.negatives, strict=True):
        low, high, p, n = (int(part) for part in cell)
        if joined and not _large_enough(joined[-1], minimum):
            first = joined.pop()
            low, p, n = first[0], first[2] + p, first[3] + n
        joined.append((low, high, p, n))
    while len(joined) > 1 and not _large_enough(joined[-1], minimum):
        last, before = joined.pop(), joined.pop()
        joined.append((before[0], last[1], before[2] + last[2], before[3] + last[3]))
    if joined and not _large_enough(joined[0], minimum):
        return None
    table = np.array(joined, dtype=np.int64).reshape(-1, 4)
    return ScoreCells(*table.T)


def pool(sites: Sequence[ScoreCells]) -> ScoreCells:
    """All sites' cells together; cells over the same bins are added."""
    low = np.concatenate([cells.low for cells in sites])
    high = np.concatenate([cells.high for cells in sites])
    spans, index = np.unique(np.stack([low, high]), axis=1, return_inverse=True)
    positives = np.zeros(spans.shape[1], dtype=np.int64)
    negatives = np.zeros_like(positives)
    np.add.at(positives, index.ravel(), np.concatenate([cells.positives for cells in sites]))
    np.add.at(negatives, index.ravel(), np.concatenate([cells.negatives for cells in sites]))
    return ScoreCells(spans[0], spans[1], positives, negatives)


def auroc(cells: ScoreCells, bins: int = BINS) -> Bounded | None:
    """Pooled AUROC; None where a class is missing.

    A pair of cells that share no bin is ordered for certain. Pairs that share one count a half, and
    half of their mass is the proven error: with cells of one bin each this is
    |error| <= 1/2 sum_k p_k n_k / (P N).
    """
    big_p, big_n = cells.total_positives, cells.total_negatives
    if big_p == 0 or big_n == 0:
        return None
    ending = np.zeros(bins, dtype=np.int64)
    starting = np.zeros(bins, dtype=np.int64)
    np.add.at(ending, cells.high, cells.negatives)
    np.add.at(starting, cells.low, cells.negatives)
    surely_below = np.concatenate([[0], np.cumsum(ending)])[cells.low]
    surely_above = big_n - np.cumsum(starting)[cells.high]
    undecided = big_n - surely_below - surely_above
    pairs = float(big_p) * float(big_n)
    concordant = float(cells.positives @ surely_below) / pairs
    open_share = float(cells.positives @ undecided) / pairs
    return Bounded(concordant + open_share / 2, concordant, concordant + open_share)


def average_precision(cells: ScoreCells, bins: int = BINS) -> Bounded | None:
    """Pooled average precision; None where a class is missing.

    Bounds: average precision only grows when a positive moves up or a negative moves down, so the
    extremes put every cell's positives at one end and its negatives at the other. The estimate
    spreads a cell evenly over its bins and integrates precision over recall inside each bin.
    """
    if cells.total_positives == 0 or cells.total_negatives == 0:
        return None
    best = _extreme(_at(cells.high, cells.positives, bins), _at(cells.low, cells.negatives, bins), True)
    worst = _extreme(_at(cells.low, cells.positives, bins), _at(cells.high, cells.negatives, bins), False)
    middle = _integrated(_spread(cells, cells.positives, bins), _spread(cells, cells.negatives, bins))
    return Bounded(min(max(middle, worst), best), worst, best)


def _large_enough(cell: tuple[int, int, int, int], minimum: int) -> bool:
    return all(count == 0 or count >= minimum for count in cell[2:])


def _at(bin_of: Counts, counts: Counts, bins: int) -> NDArray[np.float64]:
    """Counts per bin, highest score first."""
    table = np.zeros(bins)
    np.add.at(table, bin_of, counts)
    return table[::-1]


def _spread(cells: ScoreCells, counts: Counts, bins: int) -> NDArray[np.float64]:
    """Counts per bin, each cell's spread evenly over its bins, highest score first."""
    density = counts / (cells.high - cells.low + 1)
    steps = np.zeros(bins + 1)
    np.add.at(steps, cells.low, density)
    np.add.at(steps, cells.high + 1, -density)
    return np.maximum(np.cumsum(steps)[:bins], 0.0)[::-1]


def _extreme(p: NDArray[np.float64], n: NDArray[np.float64], best: bool) -> float:
    """Average precision with the positives of a bin before (best) or after (worst) its negatives.

    Best also lets all positives of a bin share its highest precision: that is what tied scores get.
    """
    above_p, above_n = np.cumsum(p) - p, np.cumsum(n) - n
    if best:
        with np.errstate(invalid="ignore"):
            gained = np.where(p > 0, p * (above_p + p) / (above_p + p + above_n), 0.0)
        return float(gained.sum() / p.sum())
    total = 0.0
    for k in np.flatnonzero(p):
        rank = above_p[k] + np.arange(1, int(p[k]) + 1)
        total += float((rank / (rank + above_n[k] + n[k])).sum())
    return total / float(p.sum())


def _integrated(p: NDArray[np.float64], n: NDArray[np.float64]) -> float:
    """Average precision when positives and negatives of a bin alternate evenly.

    Inside a bin: integral over x in [0, p] of (T + x) / (T + F + x r), r = 1 + n/p, T and F the true
    and false positives above it.
    """
    used = p > 1e-12
    t, f = (np.cumsum(p) - p)[used], (np.cumsum(n) - n)[used]
    p, n = p[used], n[used]
    r = 1 + n / p
    s = t + f
    slope = t - s / r
    with np.errstate(divide="ignore", invalid="ignore"):
        curved = np.where(s > 0, slope / r * np.log((s + r * p) / s), 0.0)
    return float((p / r + curved).sum() / p.sum())
