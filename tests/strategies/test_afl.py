"""AFL: projection, the minimax point in closed form, floors, and sites that come late or stay away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.afl import Afl, ascended, on_simplex, with_newcomers
from tests.strategies.halves import Halves, Hospital

POINTS = st.lists(st.floats(-50, 50), min_size=1, max_size=6).map(np.array)


def sites() -> list[Hospital]:
    return [Hospital("a", [0.0], stays=90, steps=1), Hospital("b", [1.0], stays=10, steps=1)]


def mixture(made: Halves) -> dict[str, float]:
    state = made.algorithm.state()
    return {k.removeprefix("mixture/"): float(x[0]) for k, x in state.items() if k.startswith("mixture/")}


@given(POINTS, st.floats(0, 2))
def test_projection_is_the_nearest_point(point: np.ndarray, mass: float) -> None:
    """Feasible, and optimal: (y - x)(z - x) <= 0 for every corner z."""
    nearest = on_simplex(point, mass)
    assert (nearest >= 0).all()
    assert nearest.sum() == pytest.approx(mass, abs=1e-9)
    for corner in np.eye(len(point)) * mass:
        assert np.dot(point - nearest, corner - nearest) <= 1e-8


@pytest.mark.parametrize("settings", [{"mixture_rate": 0.0}, {"floor": 1.0}])
def test_a_mixture_that_may_not_move_is_fedavg(settings: dict[str, float]) -> None:
    plain = Halves({"name": "fedavg"}, sites()).run(6)
    fair = Halves({"name": "afl", **settings}, sites()).run(6)
    np.testing.assert_allclose(fair.point, plain.point, rtol=1e-12)


def test_ends_where_both_sites_do_equally_badly() -> None:
    """min_w max(w^2, (1-w)^2) / 2 is at w = 1/2, with the mixture (1/2, 1/2)."""
    fair = Halves({"name": "afl", "mixture_rate": 0.3, "floor": 0.0}, sites()).run(600)
    np.testing.assert_allclose(fair.point, [0.5], atol=1e-3)
    assert mixture(fair)["b"] == pytest.approx(0.5, abs=1e-2)
    plain = Halves({"name": "fedavg"}, sites()).run(600)
    np.testing.assert_allclose(plain.point, [0.1], atol=1e-3)


def test_a_floor_holds() -> None:
    """c does far worse than all, and the others keep half their share."""
    hospitals = [*sites(), Hospital("c", [9.0], stays=100, steps=1)]
    fair = Halves({"name": "afl", "mixture_rate": 1.0, "floor": 0.5}, hospitals).run(1)
    assert mixture(fair) == pytest.approx({"a": 0.225, "b": 0.025, "c": 0.75})


def test_one_round_by_hand() -> None:
    """F = (0, 1/2) at w = 0: the mixture goes from (0.9, 0.1) by 0.2 (-1/4, 1/4)."""
    made = Halves({"name": "afl", "mixture_rate": 0.2}, sites()).run(1)
    assert made.point == pytest.approx([0.1 * 0.1])  # from (0.9, 0.1), not from the mixture after
    assert mixture(made) == pytest.approx({"a": 0.85, "b": 0.15})


def test_who_is_away_keeps_its_part() -> None:
    known = {"a": 1.0, "b": 1.0, "c": 2.0}
    before = {"a": 0.2, "b": 0.3, "c": 0.5}
    after = ascended(before, known, {"a": 0.0, "b": 1.0}, 0.1, 0.0)
    assert after == pytest.approx({"a": 0.15, "b": 0.35, "c": 0.5})


def test_who_is_new_gets_its_share() -> None:
    mixed, known = with_newcomers({"a": 0.8, "c": 0.2}, {"a": 1.0, "c": 1.0}, {"a": 1.0, "b": 2.0})
    assert mixed == pytest.approx({"a": 0.4, "b": 0.5, "c": 0.1})
    assert known == {"a": 1.0, "b": 2.0, "c": 1.0}
    assert list(mixed) == list(known) == ["a", "b", "c"]


@given(
    st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=12),
    st.lists(st.floats(0, 1e6), min_size=4, max_size=4),
    st.floats(0, 1),
    st.floats(0, 10),
)
def test_the_mixture_stays_one_whoever_comes(
    attendance: list[set[int]], losses: list[float], floor: float, gamma: float
) -> None:
    weights = {"a": 1.0, "b": 3.0, "c": 0.5, "d": 10.0}
    mixed: dict[str, float] = {}
    known: dict[str, float] = {}
    for present in attendance:
        names = ["abcd"[index] for index in sorted(present)]
        mixed, known = with_newcomers(mixed, known, {name: weights[name] for name in names})
        mixed = ascended(mixed, known, {name: losses["abcd".index(name)] for name in names}, gamma, floor)
        assert sum(mixed.values()) == pytest.approx(1.0, abs=1e-9)
        total = sum(known.values())
        assert all(part >= floor * known[name] / total - 1e-9 for name, part in mixed.items())


def test_a_round_of_sites_that_count_nothing_changes_nothing() -> None:
    made = Halves({"name": "afl", "mixture_rate": 5.0, "floor": 0.0}, sites()).run(1)
    assert mixture(made) == {"a": 0.0, "b": 1.0}
    before = made.point.copy()
    made.run(1, taking_part=lambda _: [0])
    assert made.point.tolist() == before.tolist()
    assert isinstance(made.algorithm, Afl)
