"""Which groups may be told, so that no small count shows even where tables are subtracted.

A site tells its totals. Where it tells all groups of an attribute but one, that one's counts are the total
less the others': so what is *not* told must, as a whole, be no small count either, and further groups are
held back until it is not (complementary suppression; Willenborg & de Waal 2001, Elements of Statistical
Disclosure Control, ch. 6). For two attributes together this holds along every row and column of the
table, and no small count may follow from all that is told by linear algebra.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.merging import large_enough

Counts = NDArray[np.int64]


def tellable(groups: Counts, total: Counts, minimum: int) -> list[int]:
    """Which groups of one attribute may be told.

    Args:
        groups: (G, 2) positives and negatives of each group.
        total: (2,) of all stays, in a group or not.
        minimum: of the site's policy: counts below it are not told, zero is.
    """
    told = [g for g in range(len(groups)) if _fit_to_tell(groups[g], minimum)]
    while told and not large_enough(total - groups[told].sum(axis=0), minimum):
        told.remove(min(told, key=lambda g: (groups[g].sum(), g)))
    return told


def tellable_pairs(
    table: Counts, rows: Counts, columns: Counts, total: Counts, minimum: int
) -> list[tuple[int, int]]:
    """Which cells of the table of two attributes may be told.

    Args:
        table: (R, C, 2) positives and negatives, of the groups that may be told.
        rows, columns: (R, 2), (C, 2) of each group by itself: larger than the table's sums where the other
            attribute's group is held back or not recorded.
        total: (2,) of all stays.
    """
    # Where every stay is in one of an attribute's groups, nobody is outside them along the other's lines.
    open_rows, open_columns = (bool((total > each.sum(axis=0)).any()) for each in (columns, rows))
    outside = np.repeat([open_rows, open_columns], [len(rows), len(columns)])
    told = np.zeros(table.shape[:2], bool)
    for place in np.ndindex(told.shape):
        told[place] = _fit_to_tell(table[place], minimum)
    while (drop := _too_much(table, rows, columns, outside, told, minimum)) is not None:
        told[drop] = False
    return [(int(r), int(c)) for r, c in np.argwhere(told)]


def held_back(table: Counts, rows: Counts, columns: Counts, told: list[tuple[int, int]]) -> Counts:
    """What is not told along each row, then each column: (R + C, 2)."""
    shown = np.zeros_like(table)
    for place in told:
        shown[place] = table[place]
    return np.concatenate([rows - shown.sum(axis=1), columns - shown.sum(axis=0)])


def _fit_to_tell(counts: Counts, minimum: int) -> bool:
    return bool(counts.sum() >= minimum) and large_enough(counts, minimum)


def _too_much(
    table: Counts,
    rows: Counts,
    columns: Counts,
    outside: NDArray[np.bool_],
    told: NDArray[np.bool_],
    minimum: int,
) -> tuple[int, int] | None:
    """A cell to hold back, too; None where nothing small can be worked out."""
    shown = [(int(r), int(c)) for r, c in np.argwhere(told)]
    rest = held_back(table, rows, columns, shown)
    for line, counts in enumerate(rest):
        if not large_enough(counts, minimum):
            of_line = [place for place in shown if line in (place[0], len(rows) + place[1])]
            return _smallest(table, of_line)
    for place in _determined(table, outside, told, minimum):
        of_lines = [other for other in shown if other[0] == place[0] or other[1] == place[1]] or shown
        if of_lines:
            return _smallest(table, of_lines)
    return None


def _smallest(table: Counts, places: list[tuple[int, int]]) -> tuple[int, int]:
    return min(places, key=lambda place: (table[place].sum(), place))


def _determined(
    table: Counts, outside: NDArray[np.bool_], told: NDArray[np.bool_], minimum: int
) -> list[tuple[int, int]]:
    """Cells held back whose small counts follow from the row and column sums and the cells told.

    Where `outside`, (R + C,), a line has one more unknown: its stays outside the other attribute's groups.
    """
    hidden = [(int(r), int(c)) for r, c in np.argwhere(~told)]
    small = [place for place in hidden if not large_enough(table[place], minimum)]
    if not small:
        return []
    r, c = told.shape
    lines = np.flatnonzero(outside)
    unknown = len(hidden) + len(lines)
    equations = np.zeros((r + c, unknown))
    for column, (row, col) in enumerate(hidden):
        equations[row, column] = equations[r + col, column] = 1.0
    equations[lines, len(hidden) + np.arange(len(lines))] = 1.0
    rank = np.linalg.matrix_rank(equations)
    found = []
    for place in small:
        unit = np.zeros((1, unknown))
        unit[0, hidden.index(place)] = 1.0
        if np.linalg.matrix_rank(np.concatenate([equations, unit])) == rank:
            found.append(place)
    return found
