"""SCAFFOLD: the true optimum of unlike hospitals, and what its control variates must be."""

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


def adamw(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)


def scaffold(hospitals: list[Hospital], optimiser: Any = None, rate: float = RATE, **more: Any) -> Halves:
    return Halves({"name": "scaffold", **more}, hospitals, rate, optimiser)


def control_of(made: Halves) -> np.ndarray:
    """sum_i p_i c_i as the sites have them."""
    total = sum(h.stays for h in made.hospitals)
    return np.sum([h.stays / total * h.memory["w"].numpy() for h in made.hospitals if h.memory], axis=0)


def test_it_ends_at_the_optimum_and_fedavg_does_not() -> None:
    hospitals = unlike()
    np.testing.assert_allclose(scaffold(hospitals).run(60).point, optimum(hospitals), rtol=1e-9)
    plain = Halves({"name": "fedavg"}, unlike(), RATE).run(60).point
    np.testing.assert_allclose(plain, drifted(hospitals), rtol=1e-9)
    assert np.abs(plain - optimum(hospitals)).max() > 0.1


def test_equal_weights_give_the_optimum_of_equal_weights() -> None:
    """`weighting` decides whose optimum it is: shares of the control variates follow it."""
    ended = scaffold(unlike(), weighting="uniform").run(60).point
    np.testing.assert_allclose(ended, optimum(unlike(stays=(1, 1, 1))), rtol=1e-9)


def test_it_ends_there_when_only_some_take_part() -> None:
    hospitals = unlike()
    made = scaffold(hospitals).run(120, taking_part=lambda number: [number % 3, (number + 1) % 3])
    np.testing.assert_allclose(made.point, optimum(hospitals), rtol=1e-6)


def test_the_server_s_variate_is_the_weighted_sum_of_the_sites() -> None:
    made = scaffold(unlike())
    taking_part = [[0, 1], [1], [2], [0, 2], [1, 2]]
    for number, chosen in enumerate(taking_part):
        made.run(1, taking_part=lambda _, chosen=chosen: chosen)
        if number >= 2:  # all three were there
            np.testing.assert_allclose(made.algorithm.beside()["w"], control_of(made), atol=1e-14)


def test_with_equal_weights_it_is_the_paper_s_step() -> None:
    """c + |S| / N * the mean change over S."""
    made = scaffold(unlike(), weighting="uniform").run(2, taking_part=lambda number: [number - 1])
    before = made.algorithm.beside()["w"].copy()
    made.run(1, taking_part=lambda _: [0, 2])
    mean = np.mean([update.beside["w"] for update in made.updates], axis=0)
    np.testing.assert_allclose(made.algorithm.beside()["w"], before + 2 / 3 * mean, atol=1e-15)


def test_the_mean_gradient_is_option_two_under_gradient_descent() -> None:
    """c_i - c + (x - y) / (K r), with what was received and sent in the third round."""
    made = scaffold(unlike()).run(2)
    x, c = made.point.copy(), made.algorithm.beside()["w"].copy()
    before = {h.name: h.memory["w"].numpy() for h in made.hospitals}
    made.run(1)
    for update, hospital in zip(made.updates, made.hospitals, strict=True):
        option_two = before[hospital.name] - c + (x - update.arrays["w"]) / (hospital.steps * RATE)
        np.testing.assert_allclose(hospital.memory["w"].numpy(), option_two, rtol=1e-9)


def test_under_adamw_the_variate_is_still_a_gradient() -> None:
    """At the end c_i is the gradient of F_i at the optimum, which option II would not give."""
    hospitals = unlike(steps=3)
    made = scaffold(hospitals, adamw, rate=0.05).run(60)
    made.rate = 0.002
    made.run(60)
    np.testing.assert_allclose(made.point, optimum(hospitals), atol=5e-3)
    for h in hospitals:
        gradient = np.asarray(h.curvature) * (made.point - np.asarray(h.optimum))
        np.testing.assert_allclose(h.memory["w"].numpy(), gradient, atol=2e-2)
    plain = Halves({"name": "fedavg"}, unlike(steps=3), 0.05, adamw).run(60)
    plain.rate = 0.002
    assert np.abs(plain.run(60).point - optimum(hospitals)).max() > 0.1


@pytest.mark.parametrize("optimiser", [None, adamw])
def test_one_site_is_fedavg_bit_for_bit(optimiser: Any) -> None:
    one = scaffold(unlike()[:1], optimiser).run(9).point
    other = Halves({"name": "fedavg"}, unlike()[:1], RATE, optimiser).run(9).point
    assert one.tobytes() == other.tobytes()


def test_own_layers_and_parameters_without_gradient_are_left_alone() -> None:
    model = Three()
    names = ("shared", "other_phase")
    local = round_of(
        model,
        received={name: getattr(model, name).detach().clone() for name in names},
        sent={name: torch.full((2,), 0.75) for name in names},
        memory={name: torch.full((2,), 0.5) for name in names},
    )
    half = make_algorithm(StrategyConfig(name="scaffold")).site_half()
    assert half is not None
    half.begin(local)
    for gradient in (1.0, 3.0):
        model.shared.grad, model.own.grad = torch.full((2,), gradient), torch.full((2,), gradient)
        half.on_gradient(model)
        assert model.shared.grad.tolist() == [gradient + 0.25] * 2
        assert model.own.grad.tolist() == [gradient] * 2
        assert model.other_phase.grad is None
    said = half.finish(local)
    assert {name: x.tolist() for name, x in said.arrays.items()} == {
        "shared": [1.5, 1.5],
        "other_phase": [0.0, 0.0],
    }
    assert {name: x.tolist() for name, x in local.memory.items()} == {
        "shared": [2.0, 2.0],
        "other_phase": [0.5, 0.5],
    }


@pytest.mark.parametrize("taken_back", [True, False])
def test_a_reply_that_did_not_count_must_be_taken_back(taken_back: bool) -> None:
    """With the memory of its last round that counted, the site agrees with the server again; else never."""
    made = scaffold(unlike()).run(3)
    first = made.hospitals[0]
    kept = dict(first.memory)
    made.local(first, made.weights, made.algorithm.beside())  # its reply came too late
    made.run(1, taking_part=lambda _: [1, 2])
    if taken_back:
        first.memory = kept
    made.run(2)
    apart = np.abs(made.algorithm.beside()["w"] - control_of(made)).max()
    assert (apart < 1e-14) == taken_back
    assert taken_back or apart > 1e-2


def test_updates_that_lose_digits_are_refused() -> None:
    with pytest.raises(InputFault, match="control variates are the gradients along the path"):
        make_algorithm(StrategyConfig.model_validate({"name": "scaffold", "compression": ["delta", "int8"]}))
