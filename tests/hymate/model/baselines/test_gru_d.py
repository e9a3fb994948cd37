"""GRU-D's equations on a case small enough to work by hand: one variable, one hidden unit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hymate.model.baselines.gru_d import GRUD
from hymate.model.config import GRUDConfig
from tests.hymate.model.batches import batch_of


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def step(h: float, x: float, m: float) -> float:
    """Equations 11 to 14 with the weights of `one_unit`."""
    z = sigmoid(0.5 * x - 0.2 * m + 0.3 * h + 0.1)
    r = sigmoid(-0.4 * x + 0.6 * m + 0.7 * h - 0.1)
    c = math.tanh(0.9 * x + 0.8 * m - 0.5 * (r * h) + 0.2)
    return (1 - z) * h + z * c


@pytest.fixture
def one_unit() -> GRUD:
    config = GRUDConfig(d_model=1, bin_hours=12.0)
    model = GRUD(config, codes=1, static_width=0, time_scale_hours=36.0).eval()
    with torch.no_grad():
        model.input_decay.weight.fill_(0.7)
        model.input_decay.bias.fill_(0.1)
        model.hidden_decay.weight.fill_(0.4)
        model.hidden_decay.bias.fill_(-0.1)
        model.input.weight.copy_(torch.tensor([[0.5, -0.2], [-0.4, 0.6], [0.9, 0.8]]))
        model.input.bias.copy_(torch.tensor([0.1, -0.1, 0.2]))
        model.gates.weight.copy_(torch.tensor([[0.3], [0.7]]))
        model.candidate.weight.fill_(-0.5)
    return model


def test_three_steps_by_hand(one_unit: GRUD) -> None:
    """Seen at 0, missing at 12 h and 24 h: delta is 0, 0.5 and 1 day."""
    stay = (torch.tensor([1.0]), torch.tensor([1]), torch.tensor([2.0]), torch.zeros(3))
    h = step(0.0, x=2.0, m=1.0)
    for delta in (0.5, 1.0):
        gamma_x = math.exp(-(0.7 * delta + 0.1))
        gamma_h = math.exp(-max(0.0, 0.4 * delta - 0.1))
        h = step(gamma_h * h, x=gamma_x * 2.0, m=0.0)
    found = one_unit.summarise(batch_of([stay]))
    assert found.item() == pytest.approx(h, abs=1e-6)


def test_a_negative_rate_does_not_let_values_grow(one_unit: GRUD) -> None:
    nn.init.constant_(one_unit.input_decay.weight, -5.0)
    nn.init.constant_(one_unit.input_decay.bias, -1.0)
    assert one_unit.input_decay(torch.tensor([[[0.0], [3.0]]])).eq(1.0).all()


def test_parameters_are_those_of_the_equations() -> None:
    """W, V, U and b of three gates; a rate and an offset per variable; those of the hidden decay."""
    codes, d = 7, 5
    model = GRUD(GRUDConfig(d_model=d), codes, static_width=0, time_scale_hours=48.0)
    gates = 3 * (codes * d + codes * d + d * d + d)
    decays = 2 * codes + codes * d + d
    assert model.parameter_count == gates + decays + (d + 1)  # and the head
