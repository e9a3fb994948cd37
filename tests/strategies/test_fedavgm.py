"""FedAvgM against its recurrence, Flower's, and FedAvg."""

from __future__ import annotations

import numpy as np
import pytest

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.fedavgm import with_momentum
from strategies.registry import make_algorithm
from tests.strategies.halves import Halves, Hospital

HOSPITALS = [
    Hospital("a", [1.0, 2.0, -1.0], stays=30, steps=5),
    Hospital("b", [-1.0, 0.0, 3.0], [0.5, 1.0, 2.0], stays=10, steps=3),
]


def test_momentum_is_its_recurrence() -> None:
    velocity = with_momentum({}, {"w": np.array([1.0, -2.0])}, 0.5)
    velocity = with_momentum(velocity, {"w": np.array([1.0, 1.0])}, 0.5)
    assert velocity["w"].tolist() == [1.5, 0.0]


def test_without_momentum_it_is_fedavg() -> None:
    plain = Halves({"name": "fedavg"}, HOSPITALS).run(5)
    without = Halves({"name": "fedavgm", "momentum": 0.0}, HOSPITALS).run(5)
    np.testing.assert_allclose(without.point, plain.point, rtol=1e-14)


def test_two_rounds_by_hand() -> None:
    """One hospital, curvature 1, one step of 0.1 from 0 to optimum 1: changes 0.1 (1 - w)."""
    made = Halves(
        {"name": "fedavgm", "momentum": 0.9, "server_learning_rate": 0.5}, [Hospital("a", [1.0], steps=1)]
    )
    first = 0.5 * 0.1
    second = first + 0.5 * (0.9 * 0.1 + 0.1 * (1 - first))
    assert made.run(1).point == pytest.approx(first)
    assert made.run(1).point == pytest.approx(second)


@pytest.mark.usefixtures("flower_task")
def test_equals_flower_s() -> None:
    ours = Halves({"name": "fedavgm", "momentum": 0.7, "server_learning_rate": 0.8}, HOSPITALS).run(6)
    flower = Halves(
        {"name": "flower.FedAvgM", "server_momentum": 0.7, "server_learning_rate": 0.8}, HOSPITALS
    ).run(6)
    np.testing.assert_allclose(ours.point, flower.point, rtol=1e-12)


def test_momentum_of_one_never_ends_and_is_refused() -> None:
    with pytest.raises(InputFault, match="key 'momentum'"):
        make_algorithm(StrategyConfig.model_validate({"name": "fedavgm", "momentum": 1.0}))
