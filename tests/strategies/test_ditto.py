"""Ditto: the site's own model between that of the site alone and the shared one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.ditto import OwnModel
from strategies.registry import is_personal, make_algorithm
from tests.strategies.halves import Halves, Hospital, Point, round_of
from tests.strategies.quadratics import RATE, drifted, unlike


def ditto(hospitals: list[Hospital], pull: float) -> Halves:
    return Halves({"name": "ditto", "lambda": pull}, hospitals, RATE)


def own(made: Halves, hospital: Hospital) -> np.ndarray:
    """The hospital's model as it would be scored."""
    model = Point(2)
    model.load_state_dict({"w": torch.from_numpy(made.point.copy())})
    made.algorithm.personalise(model, hospital.memory)
    return model.w.detach().numpy()


def test_the_shared_model_is_fedavg_s() -> None:
    plain = Halves({"name": "fedavg"}, unlike(), RATE).run(5).point
    assert ditto(unlike(), 0.7).run(5).point.tobytes() == plain.tobytes()


@pytest.mark.parametrize("pull", [0.3, 2.0])
def test_own_models_come_to_rest_between(pull: float) -> None:
    hospitals = unlike()
    made = ditto(hospitals, pull).run(120)
    for h in hospitals:
        curvature = np.asarray(h.curvature)
        rest = (curvature * np.asarray(h.optimum) + pull * drifted(hospitals)) / (curvature + pull)
        np.testing.assert_allclose(own(made, h), rest, rtol=1e-6)


def test_without_a_pull_it_is_the_model_of_the_site_alone() -> None:
    """Bit for bit: gradient descent that hears of nobody else."""
    made = ditto(unlike(), 0.0).run(4)
    for h in made.hospitals:
        alone, rate = Point(2), torch.optim.SGD
        optimiser = rate(alone.parameters(), lr=RATE)
        for _ in range(4 * h.steps):
            optimiser.zero_grad()
            h.loss(alone).backward()
            optimiser.step()
        assert own(made, h).tobytes() == alone.w.detach().numpy().tobytes()


def test_with_a_strong_pull_it_is_the_shared_model() -> None:
    made = ditto(unlike(), 1e12).run(4)
    received = made.point.copy()
    made.run(1)
    for h in made.hospitals:
        np.testing.assert_allclose(own(made, h), received, rtol=1e-9)


def test_before_the_first_round_it_is_the_shared_model() -> None:
    made = ditto(unlike(), 1.0)
    assert own(made, made.hospitals[0]).tolist() == made.point.tolist()
    assert is_personal(made.strategy)


def test_in_pretraining_nobody_trains_a_model_of_their_own() -> None:
    local = round_of(
        Point(2), received={}, train=lambda model, hook: pytest.fail("trained"), phase="pretrain"
    )
    OwnModel(1.0).begin(local)
    assert local.memory == {}


def test_layers_that_are_not_shared_are_not_pulled() -> None:
    """The hook given to the training of the own model pulls what was received, and nothing else."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def train(own: torch.nn.Module, hook: Any) -> None:
        with torch.no_grad():
            for parameter in own.parameters():
                parameter.add_(4.0)
        hook.after_step(own, torch.optim.SGD(own.parameters(), lr=1.0))

    local = round_of(model, received={"0.weight": start["0.weight"].clone()}, train=train)
    OwnModel(1.0).begin(local)
    torch.testing.assert_close(local.memory["0.weight"], start["0.weight"] + 2)
    torch.testing.assert_close(local.memory["1.weight"], start["1.weight"] + 4)
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())


def test_the_strength_is_called_lambda() -> None:
    with pytest.raises(InputFault, match="key 'strength' does not exist"):
        make_algorithm(StrategyConfig(name="ditto", strength=1.0))
    with pytest.raises(InputFault, match="key 'lambda'"):
        make_algorithm(StrategyConfig.model_validate({"name": "ditto", "lambda": -1.0}))
