"""Neighbouring cells become runs in which no count is small.

A table has a row per cell, in the order of the score, and a column per count (positives of all,
negatives of all, positives of one group, ...). Cells are joined until every column's sum in every run is
0 or at least the minimum, in all columns at once: tables over the same runs can be subtracted from one
another and still show no small count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def runs(table: Counts, minimum: int, apart: Sequence[int] = ()) -> Counts | None:
    """First row of each run, ascending, beginning with 0; None where even one run of all rows is too small.

    Args:
        table: counts, (rows, columns).
        minimum: every sum of a run is 0 or at least this.
        apart: rows at which a run should begin, the most important first. One that cannot be held is
            given up, the least important of those in the way first.
    """
    rows = len(table)
    if not rows:
        return np.zeros(0, np.int64)
    if not large_enough(table.sum(axis=0), minimum):
        return None
    rank = {row: place for place, row in reversed(list(enumerate(apart))) if 0 < row < rows}
    begins = [0, *sorted(rank)]
    while (small := _small_segment(table, begins, minimum)) is not None:
        beside = [row for row in begins[small : small + 2] if row]
        begins.remove(max(beside, key=lambda row: rank[row]))
    found: list[int] = []
    for begin, end in zip(begins, [*begins[1:], rows], strict=True):
        found += [begin + row for row in _greedy(table[begin:end], minimum)]
    return np.array(found, np.int64)


def large_enough(counts: Counts, minimum: int) -> bool:
    """Whether every count is 0 or at least `minimum`."""
    return bool(np.all((counts == 0) | (counts >= minimum)))


def _small_segment(table: Counts, begins: list[int], minimum: int) -> int | None:
    ends = [*begins[1:], len(table)]
    for place, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if not large_enough(table[begin:end].sum(axis=0), minimum):
            return place
    return None


def _greedy(table: Counts, minimum: int) -> list[int]:
    """Runs of a table whose sum is large enough: each is closed as soon as it is, the last joins the one
    before until it is."""
    begins: list[int] = []
    sums: list[Counts] = []
    for row, counts in enumerate(table):
        if sums and not large_enough(sums[-1], minimum):
            sums[-1] = sums[-1] + counts
        else:
            begins.append(row)
            sums.append(counts)
    while len(sums) > 1 and not large_enough(sums[-1], minimum):
        last = sums.pop()
        sums[-1] = sums[-1] + last
        begins.pop()
    return begins
