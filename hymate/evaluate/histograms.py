"""AUROC and average precision of many sites from counts per interval of score.

A site never sends a patient's score. It sends, per interval of score, how many positives and how
many negatives fell there; neighbouring intervals are joined until no count is smaller than the
site's minimum. The coordinator pools these *cells* as they are: cells of two sites may overlap in
part, so every figure comes with a proven bound.

Symbols: K bins that part [0, 1], of equal width or between edges that all sites use
(`hymate.evaluate.edges`); a cell spans bins low..high and holds p positives and n negatives; P, N their
sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.merging import runs

BINS = 512

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ScoreCells:
    """Positives and negatives per interval of score.

    low, high: (C,) first and last bin of each cell, 0..K-1, both inclusive.
    positives, negatives: (C,) stays of each class whose score fell there.
    score_sum: (C,) sum of their scores, where it was asked for.
    """

    low: Counts
    high: Counts
    positives: Counts
    negatives: Counts
    score_sum: NDArray[np.float64] | None = None

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
    """Cells of one bin each for scores in [0, 1], bins of equal width; empty bins are left out."""
    return _counted(labels, np.clip((scores * bins).astype(np.int64), 0, bins - 1), bins)


def count_between(
    labels: NDArray[np.float64], scores: NDArray[np.float64], edges: NDArray[np.float64]
) -> ScoreCells:
    """Cells of one bin each, with their sums of scores; bin k holds edges[k - 1] <= score < edges[k].

    Args:
        edges: (K - 1,) ascending, inside (0, 1).
    """
    bin_of = np.searchsorted(edges, scores, side="right")
    cells = _counted(labels, bin_of, len(edges) + 1)
    sums: NDArray[np.float64] = np.bincount(bin_of, scores, len(edges) + 1)[cells.low].astype(np.float64)
    return ScoreCells(cells.low, cells.high, cells.positives, cells.negatives, sums)


def _counted(labels: NDArray[np.float64], bin_of: Counts, bins: int) -> ScoreCells:
    positive = labels > 0.5
    p = np.bincount(bin_of[positive], minlength=bins)
    n = np.bincount(bin_of[~positive], minlength=bins)
    used = np.flatnonzero(p + n)
    return ScoreCells(used, used.copy(), p[used], n[used])


def join_small_cells(cells: ScoreCells, minimum: int, apart: Sequence[int] = ()) -> ScoreCells | None:
    """Join neighbours until every count is 0 or at least `minimum`.

    None where even one single cell would break the rule: the site then sends nothing. `apart`: bins at
    which a cell should begin, the most important first, where the minimum allows it.
    """
    begins = runs(np.stack([cells.positives, cells.negatives], axis=1), minimum, rows_at(cells, apart))
    return None if begins is None else joined(cells, begins)


def rows_at(cells: ScoreCells, bins: Sequence[int]) -> list[int]:
    """The rows that part `cells` below and from each of `bins`; bins in the middle of a cell are left out."""
    rows = []
    for bin_ in bins:
        row = int(np.searchsorted(cells.low, bin_))
        if row == 0 or cells.high[row - 1] < bin_:
            rows.append(row)
    return rows


def joined(cells: ScoreCells, begins: Counts) -> ScoreCells:
    """Cells that begin at these rows and reach to the next."""
    if not len(begins):
        return cells
    ends = np.append(begins[1:], len(cells.low)) - 1
    return ScoreCells(
        cells.low[begins],
        cells.high[ends],
        np.add.reduceat(cells.positives, begins),
        np.add.reduceat(cells.negatives, begins),
        None if cells.score_sum is None else np.add.reduceat(cells.score_sum, begins),
    )


def pool(sites: Sequence[ScoreCells]) -> ScoreCells:
    """All sites' cells together; cells over the same bins are added."""
    low = np.concatenate([cells.low for cells in sites])
    high = np.concatenate([cells.high for cells in sites])
    spans, index = np.unique(np.stack([low, high]), axis=1, return_inverse=True)
    positives = np.zeros(spans.shape[1], dtype=np.int64)
    negatives = np.zeros_like(positives)
    np.add.at(positives, index.ravel(), np.concatenate([cells.positives for cells in sites]))
    np.add.at(negatives, index.ravel(), np.concatenate([cells.negatives for cells in sites]))
    parts = [cells.score_sum for cells in sites if cells.score_sum is not None]
    sums: NDArray[np.float64] | None = None
    if len(parts) == len(sites):
        sums = np.zeros(spans.shape[1])
        np.add.at(sums, index.ravel(), np.concatenate(parts))
    return ScoreCells(spans[0], spans[1], positives, negatives, sums)


def auroc(cells: ScoreCells, bins: int = BINS) -> Bounded | None:
    """Pooled AUROC; None where a class is missing.

    A pair of cells that share no bin is ordered for certain. Pairs that share one count a half, and
    half of their mass is the proven error: with cells of one bin each this is
    |error| <= 1/2 sum_k p_k n_k / (P N).
    """
    return _auroc_of(*_pairs(cells, bins), cells)


def auroc_over_sites(sites: Sequence[tuple[ScoreCells, float | None]], bins: int = BINS) -> Bounded | None:
    """Pooled AUROC of sites that also told their own exact one, with a bound that is never wider.

    Pairs within such a site are then known exactly; only pairs across sites rest on cells.

    Args:
        sites: cells and exact AUROC of each (None: not told).
    """
    if not sites:
        return None
    everything = pool([cells for cells, _ in sites])
    sure, unsure = _pairs(everything, bins)
    for cells, exact in sites:
        if exact is not None:
            own_sure, own_unsure = _pairs(cells, bins)
            within = float(cells.total_positives) * cells.total_negatives * exact
            sure += within - own_sure
            unsure -= own_unsure
    return _auroc_of(sure, max(unsure, 0.0), everything)


def midranks(cells: ScoreCells, bins: int = BINS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per cell: negatives below one of its positives, positives above one of its negatives; (C,) each.

    Cells that share a bin count a half.
    """

    def below_and_open(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        ending, starting = np.zeros(bins), np.zeros(bins)
        np.add.at(ending, cells.high, counts)
        np.add.at(starting, cells.low, counts)
        below = np.concatenate([[0.0], np.cumsum(ending)])[cells.low]
        return below, np.cumsum(starting)[cells.high] - below

    below, undecided = below_and_open(cells.negatives)
    positives_below, positives_undecided = below_and_open(cells.positives)
    above = cells.total_positives - positives_below - positives_undecided
    return below + undecided / 2, above + positives_undecided / 2


def _pairs(cells: ScoreCells, bins: int) -> tuple[float, float]:
    """Pairs of a positive and a negative that are surely in order, and those that are undecided."""
    big_n = cells.total_negatives
    ending = np.zeros(bins, dtype=np.int64)
    starting = np.zeros(bins, dtype=np.int64)
    np.add.at(ending, cells.high, cells.negatives)
    np.add.at(starting, cells.low, cells.negatives)
    surely_below = np.concatenate([[0], np.cumsum(ending)])[cells.low]
    surely_above = big_n - np.cumsum(starting)[cells.high]
    undecided = big_n - surely_below - surely_above
    return float(cells.positives @ surely_below), float(cells.positives @ undecided)


def _auroc_of(sure: float, unsure: float, cells: ScoreCells) -> Bounded | None:
    pairs = float(cells.total_positives) * float(cells.total_negatives)
    if not pairs:
        return None
    lower, share = sure / pairs, unsure / pairs
    return Bounded(lower + share / 2, lower, lower + share)


def average_precision(cells: ScoreCells, bins: int = BINS) -> Bounded | None:
    """Pooled average precision; None where a class is missing.

    Lower bound: every cell's positives at its lowest bin and below the negatives there. Upper bound: the
    precision at a positive's own score, in some bin b of its cell, is at most T / (T + F), T the positives
    that may lie in b or higher and F the negatives that surely lie higher; the largest of these over the
    cell's bins holds for each of its positives, tied or not. (Moving all positives up is no bound: two
    that are tied further down may both gain from it.) The estimate spreads a cell evenly over its bins
    and integrates precision over recall inside each bin.
    """
    if cells.total_positives == 0 or cells.total_negatives == 0:
        return None
    t, f = highest_counts(cells, bins)
    with np.errstate(invalid="ignore"):
        precision = np.where(t > 0, t / (t + f), 0.0)
    reached = [
        float(precision[low : high + 1].max()) for low, high in zip(cells.low, cells.high, strict=True)
    ]
    best = float(cells.positives @ np.array(reached)) / cells.total_positives
    worst = _worst(_at(cells.low, cells.positives, bins), _at(cells.high, cells.negatives, bins))
    middle = _integrated(spread(cells, cells.positives, bins), spread(cells, cells.negatives, bins))
    return Bounded(min(max(middle, worst), best), worst, best)


def highest_counts(cells: ScoreCells, bins: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per bin, (K,): positives that may lie there or higher, negatives that surely lie higher."""
    t = np.cumsum(_at(cells.high, cells.positives, bins))[::-1]
    f = np.append(np.cumsum(_at(cells.low, cells.negatives, bins))[::-1][1:], 0.0)
    return t, f


def _at(bin_of: Counts, counts: Counts, bins: int) -> NDArray[np.float64]:
    """Counts per bin, highest score first."""
    table = np.zeros(bins)
    np.add.at(table, bin_of, counts)
    return table[::-1]


def spread(cells: ScoreCells, counts: Counts, bins: int) -> NDArray[np.float64]:
    """Counts per bin, each cell's spread evenly over its bins, highest score first."""
    density = counts / (cells.high - cells.low + 1)
    steps = np.zeros(bins + 1)
    np.add.at(steps, cells.low, density)
    np.add.at(steps, cells.high + 1, -density)
    return np.maximum(np.cumsum(steps)[:bins], 0.0)[::-1]


def _worst(p: NDArray[np.float64], n: NDArray[np.float64]) -> float:
    """Average precision with the positives of a bin below its negatives, one after another."""
    above_p, above_n = np.cumsum(p) - p, np.cumsum(n)
    total = 0.0
    for k in np.flatnonzero(p):
        rank = above_p[k] + np.arange(1, int(p[k]) + 1)
        total += float((rank / (rank + above_n[k])).sum())
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
