"""The TCN is causal and sees as far back as the paper says."""

from __future__ import annotations

import pytest
import torch

from hymate.model.baselines.tcn import TCN
from hymate.model.config import TCNConfig


@pytest.fixture
def blocks() -> TCN:
    """Two blocks of width 3: 1 + 2 * 2 * (1 + 2) = 13 intervals."""
    config = TCNConfig(d_model=4, layers=2, kernel_width=3, dropout=0.0)
    torch.manual_seed(0)
    model = TCN(config, codes=2, static_width=0, time_scale_hours=48.0).eval()
    with torch.no_grad():  # positive weights: no ReLU closes, nothing cancels
        for parameter in model.blocks.parameters():
            parameter.copy_(parameter.abs() + 0.1)
    return model


def test_receptive_field_to_the_interval(blocks: TCN) -> None:
    assert blocks.receptive_field == 13
    x = torch.rand(1, 6, 48, requires_grad=True)
    blocks.blocks(x)[0, :, -1].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(dim=(0, 1)) > 0
    assert seen.tolist() == [False] * 35 + [True] * 13


def test_no_interval_sees_a_later_one(blocks: TCN) -> None:
    x = torch.rand(1, 6, 48)
    later = x.clone()
    later[:, :, 20:] += 1.0
    before, after = blocks.blocks(x)[0], blocks.blocks(later)[0]
    assert torch.equal(before[:, :20], after[:, :20])
    assert (before[:, 20:] - after[:, 20:]).abs().min() > 1e-3


def test_published_sizes_see_the_whole_window() -> None:
    config = TCNConfig()
    assert TCN(config, codes=37, static_width=10, time_scale_hours=48.0).receptive_field == 379


def test_parameters_are_those_of_the_paper() -> None:
    """A weight-normalised convolution: direction, one length per output, bias."""
    inputs, d, k = 6, 4, 3
    model = TCN(
        TCNConfig(d_model=d, layers=2, kernel_width=k), codes=2, static_width=0, time_scale_hours=48.0
    )

    def convolution(width: int) -> int:
        return width * d * k + d + d

    first = convolution(inputs) + convolution(d) + (inputs * d + d)  # and its short cut
    assert model.parameter_count == first + 2 * convolution(d) + (d + 1)
