"""Quantile sketches: what leaves is about enough people, and mixing sites stays near the pooled sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.data.quantiles import SCALE, QuantileSketch, mixture, sketch_values
from hymate.data.value_grid import Floats, Ints, grid_cells, roundest

MIN_CELL = 5


def sketch(values: list[float], people: list[int] | None = None, min_cell: int = 1) -> QuantileSketch:
    person = np.array(people if people is not None else range(len(values)), np.int64)
    found = sketch_values(np.array(values, np.float64), person, min_cell)
    assert found is not None
    return found


def sample(seed: int, kind: str, size: int) -> tuple[Floats, Ints]:
    """Values as hospitals chart them (float32), several of each person, and whose they are."""
    rng = np.random.default_rng(seed)
    make: dict[str, Callable[[], Floats]] = {
        "charted": lambda: np.round(rng.normal(80, 12, size)),
        "exact": lambda: rng.normal(80, 12, size),
        "skewed": lambda: np.exp(rng.normal(0, 2, size)),
        "signed": lambda: np.round(rng.normal(0, 3, size), 1),
        "far": lambda: rng.normal(1013.25, 0.4, size),
        "often zero": lambda: np.where(rng.random(size) < 0.6, 0.0, rng.exponential(5, size)),
        "slips": lambda: np.where(rng.random(size) < 0.02, 735.0, rng.normal(7.35, 0.1, size)),
        "few": lambda: rng.integers(3, 16, size).astype(float),
    }
    value = make[kind]()
    person = rng.integers(0, max(size // 4, 1), size)
    return value.astype(np.float32).astype(np.float64), person


KINDS = ("charted", "exact", "skewed", "signed", "far", "often zero", "slips", "few")


def people_between(value: Floats, person: Ints, edges: tuple[float, ...]) -> list[int]:
    """Distinct people behind each count of a sketch."""
    place = np.searchsorted(edges, value, side="right")
    return [len(np.unique(person[place == bin_])) for bin_ in range(len(edges) + 1)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [3, 12, 60, 5000])
def test_every_count_is_of_enough_people_or_of_nobody(kind: str, size: int) -> None:
    for seed in range(5):
        value, person = sample(seed, kind, size)
        found = sketch_values(value, person, MIN_CELL)
        if len(np.unique(person)) < MIN_CELL:
            assert found is None
            continue
        assert found is not None
        assert list(found.edges) == sorted(set(found.edges))
        place = np.searchsorted(found.edges, value, side="right")
        assert found.counts == tuple(np.bincount(place, minlength=len(found.edges) + 1))
        for count, people in zip(found.counts, people_between(value, person, found.edges), strict=True):
            assert (count == 0 and people == 0) or people >= MIN_CELL
        assert sum(count > 0 for count in found.counts) <= 2 * SCALE


@pytest.mark.parametrize("kind", KINDS)
def test_no_edge_is_where_a_rare_value_is(kind: str) -> None:
    """An edge that hugs a value (it is nearer than any other edge of the grid) hugs one of many people."""
    value, person = sample(1, kind, 400)
    found = sketch_values(value, person, MIN_CELL)
    assert found is not None
    step = 1e9
    for edge in found.edges:
        digits = f"{abs(edge):.12g}".replace(".", "").lstrip("0").rstrip("0")
        assert len(digits) <= 7 if kind == "far" else len(digits) <= 4 or abs(edge) == 1e-9, edge
    # A gap told as 0 beside a bin means: the bin ends here. Only common values may be told so.
    for place, count in enumerate(found.counts):
        low = found.edges[place - 1] if place else -math.inf
        high = found.edges[place] if place < len(found.edges) else math.inf
        if count == 0:
            for edge, side in ((low, value < low), (high, value >= high)):
                if math.isfinite(edge) and side.any():
                    nearest = value[side][np.argmin(np.abs(value[side] - edge))]
                    cell = np.array([nearest])
                    lower, upper = grid_cells(cell, step) if kind != "far" else (cell - 0.005, cell + 0.005)
                    inside = (value >= lower[0]) & (value <= upper[0])
                    assert len(np.unique(person[inside])) >= MIN_CELL


def test_the_extremes_of_few_people_are_not_told() -> None:
    many = [float(value) for value in range(60, 100) for _ in range(6)]
    rare = [3.25, 181.0, 182.0, 183.0, 187.654]
    found = sketch(many + rare, min_cell=MIN_CELL)
    # 3.25 is one person's: it is in the open bin of those up to 60. The four above share one open bin
    # with those at 99, the nearest value that enough people have.
    assert found.edges[0] == 60.05
    assert found.counts[0] == 7
    assert 98.0 < found.edges[-1] < 99.0
    assert found.counts[-1] == 10


def test_a_value_that_many_share_stands_alone() -> None:
    found = sketch([0.0] * 50 + [1.0] * 10, min_cell=MIN_CELL)
    assert found == QuantileSketch((-1e-9, 1e-9, 0.9995, 1.005), (0, 50, 0, 10, 0))
    assert sketch([7.0] * 4 + [9.0] * 1, min_cell=MIN_CELL) == QuantileSketch((), (5,))


def test_people_count_once() -> None:
    value, person = np.arange(100.0), np.repeat(np.arange(4), 25)
    assert sketch_values(value, person, MIN_CELL) is None
    found = sketch_values(value, person, 4)
    assert found == QuantileSketch((), (100,))
    assert sketch_values(np.empty(0), np.empty(0, np.int64), 1) is None


def rank_error(sketches: list[QuantileSketch], at: float) -> float:
    """The bound in the module's text: share of all values in the sites' bins around `at`."""
    around = 0
    for each in sketches:
        place = int(np.searchsorted(each.edges, at, side="right"))
        near = {place, place - 1 if at in each.edges else place}
        around += sum(each.counts[bin_] for bin_ in near)
    return around / sum(each.total for each in sketches)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(KINDS),
    sites=st.lists(st.integers(1, 2000), min_size=1, max_size=4),
    min_cell=st.sampled_from([1, 5]),
)
def test_mixed_quantiles_are_near_pooled_ones(seed: int, kind: str, sites: list[int], min_cell: int) -> None:
    parts = [sample(seed + place, kind, size) for place, size in enumerate(sites)]
    sketches = [found for part in parts if (found := sketch_values(*part, min_cell)) and len(found.edges) > 1]
    told = [part[0] for part in parts if (f := sketch_values(*part, min_cell)) and len(f.edges) > 1]
    mixed = mixture(sketches)
    if mixed is None:
        assert sketches == []
        return
    pooled = np.sort(np.concatenate(told))
    for rank in (0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999):
        value = mixed.quantile(rank)
        below = np.searchsorted(pooled, value, side="left") / len(pooled)
        up_to = np.searchsorted(pooled, value, side="right") / len(pooled)
        allowed = rank_error(sketches, value) + 1e-12
        assert below - allowed <= rank <= up_to + allowed, (value, below, up_to, allowed)


def test_large_sites_give_close_quantiles() -> None:
    parts = [sample(place, "exact", 5000) for place in range(4)]
    mixed = mixture([sketch_values(*part, MIN_CELL) for part in parts])  # type: ignore[misc]
    assert mixed is not None
    pooled = np.sort(np.concatenate([value for value, _ in parts]))
    for rank in np.linspace(0.001, 0.999, 50):
        found = np.searchsorted(pooled, mixed.quantile(float(rank))) / len(pooled)
        assert abs(found - rank) < 0.003


def test_the_mixture_by_hand() -> None:
    one = QuantileSketch((0.0, 10.0), (0, 10, 0))
    two = QuantileSketch((5.0, 15.0), (0, 30, 0))
    mixed = mixture([one, two])
    assert mixed is not None
    # Below 5: half of the first site; between 5 and 10 its other half and half of the second; ...
    assert mixed.value.tolist() == [0.0, 5.0, 10.0, 15.0]
    assert mixed.rank.tolist() == [0.0, 5 / 40, 25 / 40, 1.0]
    assert mixed.quantile(0.5) == pytest.approx(5.0 + 5.0 * 15 / 20)
    assert mixed.rank_of([2.5, -1.0, 99.0]).tolist() == [2.5 / 40, 0.0, 1.0]
    assert mixed.places == 3
    assert mixture([]) is None
    assert mixture([QuantileSketch((3.0,), (5, 5))]) is None


def test_an_open_end_has_the_density_of_its_neighbour() -> None:
    mixed = mixture([QuantileSketch((10.0, 20.0, 30.0), (5, 20, 10, 0))])
    assert mixed is not None
    assert mixed.value.tolist() == [7.5, 10.0, 20.0, 30.0]
    gap = mixture([QuantileSketch((10.0, 20.0, 21.0), (5, 0, 20, 5))])
    assert gap is not None
    assert gap.value.tolist() == [0.0, 10.0, 20.0, 21.0, 21.25]


@pytest.mark.parametrize(("factor", "offset"), [(18.0, 0.0), (1.8, 32.0), (-1.0, 5.0)])
def test_a_converted_sketch_is_that_of_the_converted_values(factor: float, offset: float) -> None:
    value, person = sample(3, "exact", 500)
    found = sketch_values(value, person, MIN_CELL)
    assert found is not None
    converted = found.converted(factor, offset)
    assert list(converted.edges) == sorted(converted.edges)
    before, after = mixture([found]), mixture([converted])
    assert before is not None
    assert after is not None
    for rank in (0.0, 0.1, 0.5, 0.77, 1.0):
        wanted = before.quantile(rank if factor > 0 else 1.0 - rank) * factor + offset
        assert after.quantile(rank) == pytest.approx(wanted, rel=1e-9)


def test_one_value_may_hold_most() -> None:
    mixed = mixture([sketch([15.0] * 90 + [float(v) for v in range(3, 13)])])
    assert mixed is not None
    assert mixed.one_value_holds(0.25, 0.75)
    assert not mixed.one_value_holds(0.01, 0.75)


@given(st.floats(-1e12, 1e12, allow_nan=False), st.sampled_from([math.inf, 0.01, 10.0]))
@settings(max_examples=200, deadline=None)
def test_cells_hold_their_values_and_meet(value: float, step: float) -> None:
    if abs(value) > step * 1e8:
        step = math.inf  # float32 knows no such steps
    lower, upper = (float(edge[0]) for edge in grid_cells(np.array([value]), step))
    assert lower <= value <= upper or value == pytest.approx(lower) or value == pytest.approx(upper)
    width = max(1e-9, abs(value) * 0.011)
    assert 0.0 < upper - lower <= 2.0 * width
    if math.isinf(step) and abs(value) > 1e-6:
        beside = np.nextafter(upper, math.inf) + abs(upper) * 1e-9
        assert float(grid_cells(np.array([beside]), step)[0][0]) == pytest.approx(upper, rel=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (160.5, 180.5, 180.0),
        (7.345, 7.355, 7.35),
        (95.5, 104.5, 100.0),
        (-2.0, 1.0, 0.0),
        (-41.0, -37.0, -40.0),
    ],
)
def test_the_roundest_number_of_a_gap(low: float, high: float, wanted: float) -> None:
    assert roundest(low, high) == pytest.approx(wanted)
