"""What all robust algorithms must do: hold against one site that sends anything, and refuse too few sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from server.study import dump_study, load_study
from strategies.base import Arrays, Round, Update
from strategies.registry import demand_sites, make_algorithm
from strategies.robust import Robust
from tests.in_process import small_study
from tests.strategies.halves import Halves, Hospital

pytestmark = pytest.mark.usefixtures("flower_task")

ROBUST = ["bulyan", "krum", "median", "multikrum", "trimmed_mean"]
DEFINED_FROM = {"bulyan": 7, "krum": 5, "median": 3, "multikrum": 5, "trimmed_mean": 3}
"""Sites without which one faulty site is too many."""


def robust(name: str, **keys: Any) -> Robust:
    algorithm = make_algorithm(StrategyConfig.model_validate({"name": name, **keys}))
    assert isinstance(algorithm, Robust)
    return algorithm


def updates_of(points: list[np.ndarray], weights: list[float] | None = None) -> list[Update]:
    weights = weights or [1.0] * len(points)
    return [
        Update({"w": point}, weight, f"site{index}")
        for index, (point, weight) in enumerate(zip(points, weights, strict=True))
    ]


class Poisoned(Halves):
    """The last hospital sends what `poison` makes of its weights and of those received."""

    def __init__(
        self, name: str, poison: Callable[[Any, Any], Any] | None, hospitals: list[Hospital]
    ) -> None:
        super().__init__({"name": name}, hospitals, rate=0.3)
        self._poison = poison

    def local(self, hospital: Hospital, weights: Arrays, beside: Arrays) -> Update:
        update = super().local(hospital, weights, beside)
        if self._poison is None or hospital is not self.hospitals[-1]:
            return update
        sent = np.asarray(self._poison(update.arrays["w"], weights["w"]), np.float64)
        return Update({"w": sent}, update.weight, update.site, update.steps, update.beside, update.facts)


def federation(count: int) -> list[Hospital]:
    """Hospitals around (1, -2, 0.5), of very different sizes; the last is the largest."""
    rng = np.random.default_rng(3)
    optima = np.array([1.0, -2.0, 0.5]) + rng.normal(size=(count, 3)) * 0.1
    return [
        Hospital(f"h{index}", optimum.tolist(), stays=10 * (index + 1))
        for index, optimum in enumerate(optima)
    ]


POISON: dict[str, Callable[[Any, Any], Any]] = {
    "sign flip, times 100": lambda own, received: received - 100 * (own - received),
    "huge": lambda own, received: np.full(3, 1e30),
    "random": lambda own, received: np.random.default_rng(0).normal(size=3) * 50,
}


@pytest.mark.parametrize("poison", sorted(POISON))
@pytest.mark.parametrize("name", ROBUST)
def test_one_poisoned_hospital_moves_fedavg_and_no_robust_algorithm(name: str, poison: str) -> None:
    """Five hospitals (Bulyan: seven); the model ends among the honest ones' optima."""
    hospitals = federation(max(5, DEFINED_FROM[name]))
    honest = np.array([hospital.optimum for hospital in hospitals[:-1]])
    held = Poisoned(name, POISON[poison], hospitals).run(8).point
    assert (held >= honest.min(axis=0) - 0.02).all()
    assert (held <= honest.max(axis=0) + 0.02).all()
    plain = Poisoned("fedavg", POISON[poison], hospitals).run(8).point
    assert np.abs(plain - honest.mean(axis=0)).max() > 0.5


@pytest.mark.parametrize("name", ROBUST)
def test_without_poison_the_model_learns_as_usual(name: str) -> None:
    hospitals = federation(7)
    learned = Poisoned(name, None, hospitals).run(8).point
    usual = Poisoned("fedavg", None, hospitals).run(8).point
    assert np.abs(learned - usual).max() < 0.2


@pytest.mark.parametrize("name", ROBUST)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_by_coordinate_the_result_lies_in_the_honest_range(name: str, data: st.DataObject) -> None:
    """Whatever one site sends, of any size; but for ties the order of sites makes no difference."""
    count = DEFINED_FROM[name]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    honest = [rng.normal(size=4) for _ in range(count - 1)]
    garbage = np.array(data.draw(st.lists(st.floats(-1e20, 1e20), min_size=4, max_size=4)))
    current: Arrays = {"w": rng.normal(size=4)}
    place = data.draw(st.integers(0, count - 1))
    points = [*honest[:place], garbage, *honest[place:]]
    found = np.asarray(robust(name).aggregate(Round(1, count), current, updates_of(points))["w"], np.float64)
    low, high = np.min(honest, axis=0), np.max(honest, axis=0)
    if name in ("krum", "multikrum") and np.linalg.norm(garbage) < 100:
        # They choose whole sites: one that lies among the others may be chosen.
        low, high = np.min(points, axis=0), np.max(points, axis=0)
    if name == "bulyan":  # what it takes is no farther from an honest median than the honest are wide
        low, high = low - (high - low), high + (high - low)
    assert (found >= low - 1e-9).all()
    assert (found <= high + 1e-9).all()
    if name == "bulyan":  # the first of equals is chosen
        return
    turned = updates_of(points)[::-1]
    again = np.asarray(robust(name).aggregate(Round(1, count), current, turned)["w"], np.float64)
    np.testing.assert_allclose(again, found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ROBUST)
def test_how_many_stays_a_site_claims_makes_no_difference(name: str) -> None:
    rng = np.random.default_rng(1)
    points = [rng.normal(size=5) for _ in range(7)]
    current: Arrays = {"w": np.zeros(5)}
    alike = robust(name).aggregate(Round(1, 7), current, updates_of(points))
    boast = robust(name).aggregate(Round(1, 7), current, updates_of(points, [1.0] * 6 + [1e9]))
    assert alike["w"].tobytes() == boast["w"].tobytes()
    with pytest.raises(InputFault, match=f"strategy.weighting makes no difference under {name}"):
        robust(name, weighting={"site0": 2.0})


@pytest.mark.parametrize("name", ROBUST)
def test_fewer_sites_than_it_is_defined_for_are_refused(name: str) -> None:
    needed = DEFINED_FROM[name]
    algorithm = robust(name)
    assert algorithm.fewest() == needed
    points = [np.full(2, float(index)) for index in range(needed)]
    algorithm.aggregate(Round(1, needed), {"w": np.zeros(2)}, updates_of(points))
    words = f"{name} with these settings needs {needed} updates, and round 4 has {needed - 1}"
    with pytest.raises(InputFault, match=words):
        algorithm.aggregate(Round(4, needed), {"w": np.zeros(2)}, updates_of(points[:-1]))
    strategy = StrategyConfig(name=name)
    demand_sites(strategy, needed)
    with pytest.raises(InputFault, match=f"{name} .* needs {needed} sites, and the study has {needed - 1}"):
        demand_sites(strategy, needed - 1)


@pytest.mark.parametrize("name", ROBUST)
def test_sparse_updates_are_refused_and_small_ones_are_not(name: str) -> None:
    with pytest.raises(InputFault, match="top_k leaves most out"):
        robust(name, compression=["delta", {"name": "top_k", "share": 0.1}])
    robust(name, compression=["delta", "fp16"])


@pytest.mark.parametrize(
    ("name", "count", "faulty"),
    [("krum", 9, 3), ("trimmed_mean", 7, 3), ("bulyan", 11, 2)],
)
def test_faulty_is_counted(name: str, count: int, faulty: int) -> None:
    algorithm = robust(name, faulty=faulty)
    assert algorithm.fewest() == count
    honest = [np.array([0.01 * index]) for index in range(count - faulty)]
    bad = [np.array([1e6 + index]) for index in range(faulty)]
    found = algorithm.aggregate(Round(1, count), {"w": np.zeros(1)}, updates_of([*honest, *bad]))["w"]
    assert 0 <= float(np.asarray(found, np.float64)[0]) <= 0.01 * count


def test_a_study_that_asks_for_nonsense_is_told_when_it_is_read(tmp_path: Any) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(dump_study(small_study(strategy={"name": "krum", "faulty": -1})))
    with pytest.raises(InputFault, match=r"study.yaml: strategy: key 'faulty'"):
        load_study(path)
