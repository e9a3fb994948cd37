"""FedProx: its fixed point, and FedAvg where nothing pulls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.registry import make_algorithm
from tests.strategies.halves import Halves
from tests.strategies.quadratics import RATE, drifted, optimum, unlike


def adamw(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate)


@pytest.mark.parametrize("mu", [0.0, 0.3, 5.0])
def test_it_ends_at_its_fixed_point(mu: float) -> None:
    hospitals = unlike()
    ended = Halves({"name": "fedprox", "mu": mu}, hospitals, RATE).run(80).point
    np.testing.assert_allclose(ended, drifted(hospitals, mu), rtol=1e-6)


def test_a_strong_pull_takes_the_drift_out() -> None:
    """Its fixed points go from FedAvg's to the optimum: with mu, sites take ever smaller steps from w_t."""
    hospitals = unlike()
    away = [np.abs(drifted(hospitals, mu) - optimum(hospitals)).max() for mu in (0.0, 1.0, 10.0, 1000.0)]
    assert away == sorted(away, reverse=True)
    assert away[0] > 0.1
    assert away[-1] < 0.01


@pytest.mark.parametrize("optimiser", [None, adamw])
def test_without_a_pull_it_is_fedavg_bit_for_bit(optimiser: object) -> None:
    one, other, pulled = (
        Halves(strategy, unlike(), RATE, optimiser).run(7).point  # type: ignore[arg-type]
        for strategy in ({"name": "fedprox", "mu": 0}, {"name": "fedavg"}, {"name": "fedprox", "mu": 0.1})
    )
    assert one.tobytes() == other.tobytes()
    assert pulled.tobytes() != other.tobytes()


def test_the_pull_does_not_go_through_the_gradient() -> None:
    """Whatever replaces gradients (noise does) leaves the proximal step: here they are all zero."""
    made = Halves({"name": "fedprox", "mu": 2.0}, unlike(), RATE)
    half = made.algorithm.site_half()
    assert half is not None
    model = nn.Linear(2, 1, bias=False)
    received = {"weight": torch.zeros(1, 2)}
    half.begin(_Received(received))  # type: ignore[arg-type]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    before = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(model.weight)
    half.on_gradient(model)
    optimiser.step()
    half.after_step(model, optimiser)
    torch.testing.assert_close(model.weight.detach(), before / 2)


class _Received:
    def __init__(self, received: dict[str, torch.Tensor]) -> None:
        self.received = received


@pytest.mark.parametrize("mu", [-1.0, float("nan"), float("inf")])
def test_a_wrong_strength_is_refused(mu: float) -> None:
    with pytest.raises(InputFault, match="mu"):
        make_algorithm(StrategyConfig(name="fedprox", mu=mu))
