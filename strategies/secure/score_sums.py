"""Score reports as numbers that add up, and the report of all sites that their sum is.

A site's cells are intervals of bins, joined until no count is below its minimum, and other ones at every
site. They are told as four histograms: positives by the first and by the last bin of their cell, negatives
alike. Every number in them is zero or at least the minimum, and so is every one in their sum.

The k-th lowest first bin and the k-th lowest last bin make an interval again, none across an edge at which
every site begins a cell. With these in place of the sites' own cells the pairs that are surely in order are
the same, and so are the bounds of AUROC. Where one cell lay in another, two overlapping ones are made of the
same union and intersection: so the sum over positives of the highest precision in their cell, the upper bound
of average precision, can only grow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.histograms import ScoreCells
from hymate.evaluate.metrics import SUMS
from hymate.score_reports import Cells, ScoreReport
from strategies.secure.ring import OutOfBounds

Floats = NDArray[np.float64]


def size_of(bins: int) -> int:
    """How many numbers a report between so many bins is."""
    return 4 * bins + len(SUMS)


def numbers_of(report: ScoreReport, bins: int) -> Floats:
    """A site's report, (size_of(bins),); zeros where it may tell nothing."""
    found = np.zeros((4, bins))
    if report.cells is None:
        return np.zeros(size_of(bins))
    cells = report.cells.arrays()
    for counts, rows in ((cells.positives, (0, 1)), (cells.negatives, (2, 3))):
        for row, bin_of in zip(rows, (cells.low, cells.high), strict=True):
            np.add.at(found[row], bin_of, counts)
    return np.concatenate([found.ravel(), [getattr(report, name) or 0.0 for name in SUMS]])


def report_of(numbers: Floats, bins: int) -> ScoreReport:
    """The report of all stays of a sum of `numbers_of`; what only one site can tell is None.

    Raises:
        OutOfBounds: no sites have such numbers.
    """
    counts = np.rint(numbers[: 4 * bins]).astype(np.int64).reshape(4, bins)
    totals = counts.sum(axis=1)
    if (counts < 0).any() or totals[0] != totals[1] or totals[2] != totals[3]:
        raise OutOfBounds("their score reports sum up to no counts of stays")
    positives, negatives = (_intervals(*counts[rows]) for rows in (slice(0, 2), slice(2, 4)))
    p, n = (int(lengths.sum()) for *_, lengths in (positives, negatives))
    if not p + n:
        return ScoreReport(n=None, positives=None)
    nothing_p, nothing_n = np.zeros_like(positives[2]), np.zeros_like(negatives[2])
    cells = ScoreCells(
        np.concatenate([positives[0], negatives[0]]),
        np.concatenate([positives[1], negatives[1]]),
        np.concatenate([positives[2], nothing_n]),
        np.concatenate([nothing_p, negatives[2]]),
    )
    sums = dict(zip(SUMS, map(float, numbers[4 * bins :]), strict=True))
    return ScoreReport.model_validate({"n": p + n, "positives": p, "cells": Cells.of(cells), **sums})


def _intervals(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Intervals of bins and how many lie in each, out of how many begin and end in every bin, (K,) each."""
    begun, ended = np.cumsum(first), np.cumsum(last)
    ranks = np.unique(np.concatenate([begun, ended]))
    ranks = ranks[ranks > 0]
    low = np.searchsorted(begun, ranks)
    high = np.searchsorted(ended, ranks)
    return low, high, np.diff(ranks, prepend=0)
