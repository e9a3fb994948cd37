"""Quantiles that may leave a hospital: bins of at least `min_cell` people, and their mixture.

A t-digest (Dunning & Ertl 2019, https://arxiv.org/abs/1902.04023) keeps the extremes of a sample as
centroids of weight one and its exact minimum and maximum; KLL and REQ sketches keep sampled values as
they are. Those are single patients' values, so no such library (crick, datasketches, fastdigest) can
be asked for a sketch that leaves a hospital. What leaves here are counts between rounded edges:

- An edge lies halfway between numbers of three significant digits (or of a tenth of the spread of the
  middle 80 %, where that is finer), or is the roundest number of a gap in the data. It is never the
  place of a value that fewer than `min_cell` people have.
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

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCALE = 50
DIGITS = 3
ZERO = 1e-9  # values nearer to 0 than this are one cell of the grid
POWERS = np.array([float(f"1e{power}") for power in range(-20, 60)])


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
        largest_step = _fine_step(value)
        begins = _cell_begins(value, largest_step)
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


def _fine_step(value: Floats) -> float:
    """The grid's largest step for ascending values.

    Infinite, or for data far from 0 the power of ten in a tenth of the middle 80 %'s spread.
    """
    low, middle, high = (float(value[int(rank * (len(value) - 1))]) for rank in (0.1, 0.5, 0.9))
    tenth = (high - low) / 10.0
    decade = int(np.searchsorted(POWERS, max(abs(middle), ZERO), side="right")) - 1
    if tenth <= 0.0 or tenth >= POWERS[decade + 1 - DIGITS]:
        return math.inf
    return 10.0 ** math.floor(math.log10(tenth))


def grid_cells(value: Floats, largest_step: float = math.inf) -> tuple[Floats, Floats]:
    """Lower and upper edge of the cell of numbers that round to the same three significant digits.

    >>> [edge.tolist() for edge in grid_cells(np.array([7.352, 180.2, 1003.0, -0.5, 0.0]))]
    [[7.345, 179.5, 999.5, -0.5005, -1e-09], [7.355, 180.5, 1005.0, -0.4995, 1e-09]]
    """
    decade, number = _rounded(value, largest_step)
    step = _steps(decade, largest_step)
    # Below a power of ten steps are narrower.
    first = number * step <= POWERS[decade] * (1.0 + 1e-12)
    below = np.where(first, _steps(decade - 1, largest_step), step)
    inner, outer = number * step - below / 2.0, number * step + step / 2.0
    zero = np.abs(value) < ZERO
    lower = np.where(zero, -ZERO, np.where(value < 0.0, -outer, inner))
    upper = np.where(zero, ZERO, np.where(value < 0.0, -inner, outer))
    return _tidy(lower), _tidy(upper)


def _cell_begins(value: Floats, largest_step: float) -> Ints:
    """Positions in `value` (ascending) at which another cell of the grid begins."""
    decade, number = _rounded(value, largest_step)
    sign = np.sign(np.where(np.abs(value) < ZERO, 0.0, value))
    changes = (np.diff(decade) != 0) | (np.diff(number) != 0) | (np.diff(sign) != 0)
    return np.concatenate(([0], np.flatnonzero(changes) + 1))[: len(value)]


def _rounded(value: Floats, largest_step: float) -> tuple[Ints, Floats]:
    """Each |value| as `number` steps of the decade `POWERS[decade]`."""
    size = np.maximum(np.abs(value), ZERO)
    decade = np.searchsorted(POWERS, size, side="right") - 1
    number = np.floor(size / _steps(decade, largest_step) + 0.5)
    up = number * _steps(decade, largest_step) >= POWERS[decade + 1] * (1.0 - 1e-12)  # 999.7 is 1000
    decade = decade + up
    return decade, np.where(up, np.round(POWERS[decade] / _steps(decade, largest_step)), number)


def _steps(decade: Ints, largest_step: float) -> Floats:
    step: Floats = np.minimum(POWERS[decade + 1 - DIGITS], largest_step)
    return step


def _tidy(value: Floats) -> Floats:
    """Without the last bits that arithmetic left: the same edge from either side is the same number."""
    digits = 12 - np.floor(np.log10(np.maximum(np.abs(value), 1e-300))).astype(np.int64)
    power = 10.0 ** np.clip(digits, -300, 300)
    tidy: Floats = np.round(value * power) / power
    return tidy


def roundest(low: float, high: float) -> float:
    """The number of fewest digits in [low, high].

    >>> roundest(160.5, 180.5), roundest(7.21, 7.29), roundest(-3.0, 5.0), roundest(-41.0, -37.0)
    (180.0, 7.25, 0.0, -40.0)
    """
    if low <= 0.0 <= high:
        return 0.0
    if high < 0.0:
        return -roundest(-high, -low)
    power = math.floor(math.log10(high)) + 1
    while True:
        for part in (1.0, 0.5):
            step = 10.0**power * part
            number = math.floor(high / step * (1.0 + 1e-12)) * step
            if number >= low:
                return float(f"{number:.12g}")
        power -= 1
