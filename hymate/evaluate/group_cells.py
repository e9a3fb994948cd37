"""Cells of groups, over runs of the whole site's cells, so that differences show no small count.

The whole's cells, those of an attribute's groups, and those of two attributes together are nested: every
coarser table's cells are runs of the finer one's. In each of them every group told, and what is left of the
whole once they are taken away, counts 0 or at least the minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.disclosure import held_back, tellable, tellable_pairs
from hymate.evaluate.group_members import Members, crossed
from hymate.evaluate.histograms import ScoreCells, rows_at
from hymate.evaluate.merging import runs

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scored:
    """A site's labelled stays with their scores, (n,), and the whole's cells, each stay's among them."""

    labels: Floats
    scores: Floats
    cells: ScoreCells
    bin_of: Counts

    @cached_property
    def row_of(self) -> Counts:
        """Row of `cells` in which each stay lies, (n,)."""
        return np.searchsorted(self.cells.low, self.bin_of, side="right") - 1

    @cached_property
    def total(self) -> Counts:
        """Positives and negatives, (2,)."""
        return np.array([self.cells.total_positives, self.cells.total_negatives])

    def table(self, group: Counts, groups: int) -> Counts:
        """Stays of each row, group and class: (rows, G, 2)."""
        counts = np.zeros((len(self.cells.low), groups, 2), np.int64)
        known = group >= 0
        negative = (self.labels[known] < 0.5).astype(np.int64)
        np.add.at(counts, (self.row_of[known], group[known], negative), 1)
        return counts


@dataclass(frozen=True)
class ToldGroups:
    """The groups of an attribute, or of two, that may be told. `told` are positions in `members.names`;
    their cells begin at the rows `begins` of the whole's."""

    members: Members
    told: tuple[int, ...]
    begins: Counts

    def cells(self, scored: Scored, group: int) -> ScoreCells:
        """The cells of one group; those without a stay are left out."""
        here = self.members.group == group
        run_of = np.searchsorted(self.begins, scored.row_of[here], side="right") - 1
        positive = scored.labels[here] > 0.5
        size = len(self.begins)
        ends = np.append(self.begins[1:], len(scored.cells.low)) - 1
        p, n = np.bincount(run_of[positive], minlength=size), np.bincount(run_of[~positive], minlength=size)
        sums = np.bincount(run_of, scored.scores[here], size).astype(np.float64)
        used = p + n > 0
        return ScoreCells(
            scored.cells.low[self.begins][used], scored.cells.high[ends][used], p[used], n[used], sums[used]
        )

    @property
    def held_back(self) -> list[str]:
        """Groups that have stays here and are not told."""
        present = {int(each) for each in np.unique(self.members.group) if each >= 0}
        return [self.members.names[group] for group in sorted(present - set(self.told))]


def one_attribute(scored: Scored, members: Members, minimum: int, apart: list[int]) -> ToldGroups:
    """Which groups may be told, and over which cells; `apart`: bins at which a cell should begin."""
    table = scored.table(members.group, len(members.names))  # (rows, G, 2)
    told = tellable(table.sum(axis=0), scored.total, minimum)
    whole = np.stack([scored.cells.positives, scored.cells.negatives], axis=1)
    rest = whole - table[:, told].sum(axis=1)
    columns = np.concatenate([table[:, told].reshape(len(whole), -1), rest], axis=1)
    begins = runs(columns, minimum, rows_at(scored.cells, apart))
    assert begins is not None  # `tellable` saw to it that all rows together are large enough
    return ToldGroups(members, tuple(told), begins)


def two_attributes(
    scored: Scored, first: ToldGroups, second: ToldGroups, minimum: int, apart: list[int]
) -> ToldGroups:
    """As `one_attribute`, for the groups told of both together."""
    a, b = first.members, second.members
    both = crossed(a, b)
    r, c = len(first.told), len(second.told)
    wide = scored.table(both.group, len(both.names)).reshape(-1, len(a.names), len(b.names), 2)
    table = wide[:, first.told][:, :, second.told]  # (rows, R, C, 2)
    rows = scored.table(a.group, len(a.names))[:, first.told]
    columns = scored.table(b.group, len(b.names))[:, second.told]
    told = tellable_pairs(
        table.sum(axis=0),
        rows.sum(axis=0),
        columns.sum(axis=0),
        scored.total,
        minimum,
    )
    shared = np.intersect1d(first.begins, second.begins)

    def over_shared(counts: Counts) -> Counts:
        return np.add.reduceat(counts, shared, axis=0)

    table, rows, columns = over_shared(table), over_shared(rows), over_shared(columns)
    every = [table[:, row, column] for row, column in told]
    rest = [
        np.stack([held_back(table[i], rows[i], columns[i], told)[line] for i in range(len(shared))])
        for line in range(r + c)
    ]
    part_at = [int(np.searchsorted(shared, row)) for row in rows_at(scored.cells, apart) if row in shared]
    begins = runs(np.concatenate([*every, *rest], axis=1), minimum, part_at) if told else None
    positions = tuple(first.told[row] * len(b.names) + second.told[column] for row, column in told)
    return ToldGroups(both, positions, shared[begins] if begins is not None else np.zeros(1, np.int64))
