"""Quantiles that may leave a hospital: bins of at least `min_cell` people, and their mixture.

A t-digest (Dunning & Ertl 2019, https://arxiv.org/abs/1902.04023) keeps the extremes of a sample as
centroids of weight one and its exact minimum and maximum; KLL and REQ sketches keep sampled values as
they are. Those are single patients' values, so no such library (crick, datasketches, fastdigest) can
be asked for a sketch that leaves a hospital. What leaves here are counts between rounded edges:

- An edge lies halfway between numbers of three significant digits (or of a tenth of the spread of the
  middle 80 %, where that is finer; `hymate.data.value_grid`), or is the roundest number of a gap in
  the data. Where in its cell or beside its gap a value of fewer than `min_cell` people lies is not told.
- Every count is 0 or stands for at least `min_cell` people; the outermost bins are open, so the
  outermost edges are a minimum and a maximum that say nothing of one person. Only around a single
  rounded value that `min_cell` people share are both edges given and the gaps beside it told as 0.

Bins follow the t-digest's scale function k1: narrow (in rank) at both ends, at most `2 SCALE` of them.
Sites' distributions, linear between their edges, are mixed exactly. The mixture's rank at any value x
differs from the pooled sample's by less than the share of all values that lie in the sites' bins
around x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hymate.data.value_grid import Floats, Ints, cell_begins, grid_cells, largest_step_of, roundest

SCALE = 50


@dataclass(frozen=True)
class QuantileSketch:
    """How many values lie between rounded edges; nothing about fewer than a site's `min_cell` people.

    `edges` ascend (E of them); `counts` has E + 1: below the first edge, between neighbours, from the
    last edge on.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """Values counted."""
        return sum(self.counts)

    def converted(self, factor: float, offset: float) -> QuantileSketch:
        """The sketch of value * factor + offset."""
        edges = tuple(edge * factor + offset for edge in self.edges)
        if factor < 0.0:
            return QuantileSketch(edges[::-1], self.counts[::-1])
        return QuantileSketch(edges, self.counts)

    def knots(self) -> tuple[Floats, Floats] | None:
        """Values (ascending) and how many lie below each; linear between them. None: too few edges.

        An open end gets the density of the bin beside it.
        """
        if len(self.edges) < 2:
            return None
        edges, counts = np.array(self.edges), self.counts
        below = _open_width(edges[:2], counts[0], counts[1])
        above = _open_width(edges[-2:], counts[-1], counts[-2])
        value = np.concatenate(([edges[0] - below], edges, [edges[-1] + above]))
        return value, np.concatenate(([0.0], np.cumsum(counts, dtype=np.float64)))


def _open_width(beside: Floats, count: int, count_beside: int) -> float:
    """How far an open end reaches whose neighbour is the bin between the edges `beside`."""
    width = float(beside[1] - beside[0])
    return width * (count / count_beside if count_beside else float(count > 0))


@dataclass(frozen=True, eq=False)
class Distribution:
    """A piecewise-linear distribution function: at `value` (K,) ascending, the share `rank` lies below."""

    value: Floats
    rank: Floats

    @property
    def places(self) -> int:
        """Pieces between neighbouring knots that hold values."""
        return int(np.count_nonzero(np.diff(self.rank)))

    def quantile(self, rank: float) -> float:
        """The value below which this share lies."""
        return float(np.interp(rank, self.rank, self.value))

    def rank_of(self, value: npt.ArrayLike) -> Floats:
        """Share of the values below each `value`."""
        found: Floats = np.interp(np.asarray(value, np.float64), self.value, self.rank, left=0.0, right=1.0)
        return found

    def one_value_holds(self, low: float, high: float) -> bool:
        """Whether the quantiles `low` and `high` lie between the same two knots: no spread to speak of."""
        first, last = np.searchsorted(self.rank, [low, high])
        return bool(first == last)


def mixture(sketches: Sequence[QuantileSketch]) -> Distribution | None:
    """All sites' values as one distribution; None where no site has sent enough edges."""
    parts = [knots for sketch in sketches if (knots := sketch.knots()) is not None]
    if not parts:
        return None
    value = np.unique(np.concatenate([each for each, _ in parts]))
    below = sum(np.interp(value, *part) for part in parts)
    total = sum(float(count[-1]) for _, count in parts)
    return Distribution(value, np.asarray(below) / total)


def sketch_values(value: Floats, person: Ints, min_cell: int) -> QuantileSketch | None:
    """The sketch of one code's finite values (n,); `person` (n,) numbers the people from 0.

    None where fewer than `min_cell` people have a value.
    """
    if len(value) == 0:
        return None
    order = np.argsort(value, kind="stable")
    value, person = value[order], person[order]
    cells = _Cells.of(value, person, min_cell)
    ends = _bins(cells, min_cell)
    if not ends:
        return None
    edges: list[float] = []
    counts: list[int] = []
    if cells.common[0]:
        edges.append(float(cells.lower[0]))
        counts.append(0)
    total = np.concatenate(([0], np.cumsum(cells.count)))
    begin = 0
    for end in ends:
        counts.append(int(total[end] - total[begin]))
        if end < len(cells.count):
            between = cells.edges_after(end - 1)
            edges += between
            counts += [0] * (len(between) - 1)
        elif cells.common[-1]:
            edges.append(float(cells.upper[-1]))
            counts.append(0)
        begin = end
    # Twelve digits: far finer than the grid, and free of what binary fractions leave behind.
    return QuantileSketch(tuple(float(f"{edge:.12g}") for edge in edges), tuple(counts))


@dataclass(frozen=True, eq=False)
class _Cells:
    """The cells of the grid that hold values, ascending; C of them.

    `count` (C,) values, `common` (C,) whether `min_cell` people stand behind them; the distinct people
    of cell i are `people[first[i] : first[i + 1]]`.
    """

    lower: Floats
    upper: Floats
    count: Ints
    common: npt.NDArray[np.bool_]
    people: Ints
    first: Ints

    @classmethod
    def of(cls, value: Floats, person: Ints, min_cell: int) -> _Cells:
        largest_step = largest_step_of(value)
        begins = cell_begins(value, largest_step)
        lower, upper = grid_cells(value[begins], largest_step)
        cell = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(value)))
        width = int(person.max(initial=0)) + 1
        pairs = np.sort(cell * width + person)  # np.unique hashes, which takes four times as long
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        people = np.bincount(pairs // width, minlength=len(begins))
        return cls(
            lower=lower,
            upper=upper,
            count=np.diff(begins, append=len(value)),
            common=people >= min_cell,
            people=pairs % width,
            first=np.concatenate(([0], np.cumsum(people))),
        )

    def edges_after(self, cell: int) -> list[float]:
        """One or two edges between this cell and the next that tell no rare value's place."""
        upper, lower = float(self.upper[cell]), float(self.lower[cell + 1])
        if math.isclose(upper, lower, rel_tol=1e-9, abs_tol=1e-12):
            return [upper]
        around = ([upper] if self.common[cell] else []) + ([lower] if self.common[cell + 1] else [])
        return around or [roundest(upper, lower)]


def _bins(cells: _Cells, min_cell: int) -> list[int]:
    """One past the last cell of every bin; none where all cells together hold too few people."""
    units = _smallest_bins(cells, min_cell)
    total = int(cells.count.sum())
    cumulative = np.cumsum(cells.count)
    ends: list[int] = []
    began = _scale(0.0)
    for before, unit in zip([0, *units], units, strict=False):
        # A unit that would make the open bin too wide begins the next one.
        if before and before > (ends[-1] if ends else 0) and _scale(cumulative[unit - 1] / total) - began > 1:
            ends.append(before)
            began = _scale(cumulative[before - 1] / total)
    return ends + units[-1:]


def _smallest_bins(cells: _Cells, min_cell: int) -> list[int]:
    """One past the last cell of every smallest run of cells that holds `min_cell` people."""
    ends: list[int] = []
    people: set[int] = set()
    for cell, common in enumerate(cells.common):
        if not common:
            people.update(cells.people[cells.first[cell] : cells.first[cell + 1]].tolist())
        if common or len(people) >= min_cell:
            ends.append(cell + 1)
            people = set()
    if ends:
        ends[-1] = len(cells.count)  # the few people left join the last bin
    return ends


def _scale(rank: float) -> float:
    """The t-digest's k1 with `SCALE` bins of equal height."""
    return SCALE * (math.asin(2.0 * min(rank, 1.0) - 1.0) / math.pi + 0.5)
