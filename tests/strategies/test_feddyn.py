"""FedDyn: the true optimum of unlike hospitals, and memories that are gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.registry import make_algorithm
from tests.strategies.halves import Halves, Hospital, Three, round_of
from tests.strategies.quadratics import RATE, drifted, optimum, unlike


def adam(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=rate)


def feddyn(hospitals: list[Hospital], alpha: float = 1.0, optimiser: Any = None, **more: Any) -> Halves:
    return Halves({"name": "feddyn", "alpha": alpha, **more}, hospitals, RATE, optimiser)


def gradient(hospital: Hospital, point: np.ndarray) -> np.ndarray:
    return np.asarray(hospital.curvature, float) * (point - np.asarray(hospital.optimum))


@pytest.mark.parametrize(
    ("alpha", "steps", "rounds"), [(0.1, 5, 150), (1.0, 5, 80), (1.0, 40, 30), (3.0, 5, 80)]
)
def test_it_ends_at_the_optimum_and_fedavg_does_not(alpha: float, steps: int, rounds: int) -> None:
    hospitals = unlike(steps=steps)
    ended = feddyn(hospitals, alpha).run(rounds).point
    np.testing.assert_allclose(ended, optimum(hospitals), rtol=1e-2)
    assert np.abs(drifted(hospitals) - optimum(hospitals)).max() > 0.1


def test_equal_weights_give_the_optimum_of_equal_weights() -> None:
    ended = feddyn(unlike(), weighting="uniform").run(80).point
    np.testing.assert_allclose(ended, optimum(unlike(stays=(1, 1, 1))), rtol=1e-2)


def test_it_ends_there_when_only_some_take_part() -> None:
    hospitals = unlike()
    made = feddyn(hospitals).run(120, taking_part=lambda number: [number % 3, (number + 1) % 3])
    np.testing.assert_allclose(made.point, optimum(hospitals), rtol=1e-2)


def test_the_server_s_gradient_is_the_weighted_sum_of_the_sites() -> None:
    """And what it takes off the mean, over alpha, is that sum."""
    made = feddyn(unlike(), alpha=0.7).run(4, taking_part=lambda number: [number % 3, (number + 1) % 3])
    shares = np.array([h.stays for h in made.hospitals]) / 60
    summed = sum(p * h.memory["w"].numpy() for p, h in zip(shares, made.hospitals, strict=True))
    np.testing.assert_allclose(made.algorithm.state()["gradient/w"], summed, atol=1e-14)
    weights = np.array([update.weight for update in made.updates])
    mean = np.average([update.arrays["w"] for update in made.updates], axis=0, weights=weights)
    np.testing.assert_allclose(made.point, mean - summed / 0.7, atol=1e-14)


@pytest.mark.parametrize("optimiser", [None, adam])
def test_the_memory_is_the_gradient_at_the_site_s_own_weights(optimiser: Any) -> None:
    """After enough steps, whatever the optimiser: why the proximal term is on the gradient, too."""
    made = feddyn(unlike(steps=700), alpha=0.5, optimiser=optimiser)
    made.rate = RATE if optimiser is None else 0.02
    made.run(2)
    for hospital, update in zip(made.hospitals, made.updates, strict=True):
        at_its_own = gradient(hospital, update.arrays["w"])
        assert np.abs(at_its_own).max() > 0.1
        np.testing.assert_allclose(hospital.memory["w"].numpy(), at_its_own, atol=1e-4)


def test_own_layers_and_parameters_without_gradient_are_left_alone() -> None:
    model = Three()
    local = round_of(
        model,
        received={"shared": torch.zeros(2), "other_phase": torch.ones(2)},
        memory={"shared": torch.full((2,), 0.25, dtype=torch.float64)},
    )
    half = make_algorithm(StrategyConfig(name="feddyn", alpha=0.5)).site_half()
    assert half is not None
    half.begin(local)
    model.shared.grad, model.own.grad = torch.ones(2), torch.ones(2)
    half.on_gradient(model)
    assert model.shared.grad.tolist() == [1 - 0.25 + 0.5] * 2
    assert model.own.grad.tolist() == [1.0, 1.0]
    assert model.other_phase.grad is None
    said = half.finish(local)
    assert said.arrays == {}
    assert {name: x.tolist() for name, x in local.memory.items()} == {
        "shared": [0.25 - 0.5] * 2,
        "other_phase": [0.0, 0.0],
    }


def test_updates_that_lose_digits_are_refused() -> None:
    with pytest.raises(InputFault, match="follows every site's gradient memory"):
        make_algorithm(StrategyConfig.model_validate({"name": "feddyn", "compression": ["delta", "fp16"]}))


def test_no_strength_is_refused() -> None:
    with pytest.raises(InputFault, match="alpha"):
        make_algorithm(StrategyConfig(name="feddyn", alpha=0.0))
