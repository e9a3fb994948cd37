"""Temporal convolutional network: causal convolutions, each seeing twice as far back as the one before.

Bai, Kolter, Koltun, arXiv 1803.01271, section 3 (https://arxiv.org/abs/1803.01271).

    x        (B, 3V, T)   [filled values, masks, times]               grid.py
    block i  (B, d, T)    ReLU(x + F(x)); F is twice: weight-normalised causal convolution of width k and
                          dilation 2^i, ReLU, dropout; a 1x1 convolution where the widths of x and F differ
    h        (B, d)       the last interval

n blocks see 1 + 2 (k - 1)(2^n - 1) intervals (section 3.3: two convolutions a block). Departs from the
paper: dropout of single elements instead of whole channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from hymate.data.batching import TripletBatch
from hymate.model.baselines.baseline import Baseline
from hymate.model.baselines.grid import grid_features, grid_of, intervals
from hymate.model.dropout import Dropout

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import TCNConfig

FIRST_STD = 0.01  # of the first weights (the paper's own code)


class CausalConvolution(nn.Module):
    """Weight-normalised convolution that sees no later interval."""

    def __init__(self, inputs: int, outputs: int, width: int, dilation: int) -> None:
        super().__init__()
        self.past = (width - 1) * dilation
        convolution = nn.Conv1d(inputs, outputs, width, dilation=dilation)
        nn.init.normal_(convolution.weight, std=FIRST_STD)
        self.convolution = weight_norm(convolution)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, T) -> (B, outputs, T)."""
        y: Tensor = self.convolution(F.pad(x, (self.past, 0)))
        return y


class ResidualBlock(nn.Module):
    """Two causal convolutions beside a short cut (the paper's figure 1b)."""

    def __init__(self, inputs: int, outputs: int, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = CausalConvolution(inputs, outputs, width, dilation)
        self.second = CausalConvolution(outputs, outputs, width, dilation)
        self.dropout = Dropout(dropout)
        self.short_cut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, T) -> (B, outputs, T)."""
        y = self.dropout(F.relu(self.first(x)))
        y = self.dropout(F.relu(self.second(y)))
        return F.relu(y + self.short_cut(x))


class TCN(Baseline):
    """`layers` blocks of dilation 1, 2, 4, ...; the last interval is the stay."""

    can_forecast = False
    config: TCNConfig

    def __init__(self, config: TCNConfig, codes: int, static_width: int, time_scale_hours: float) -> None:
        d = config.d_model
        super().__init__(config, codes, static_width, d)
        self.time_scale_hours = time_scale_hours
        self.steps = intervals(time_scale_hours, config.bin_hours)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(d if i else 3 * codes, d, config.kernel_width, 2**i, config.dropout)
                for i in range(config.layers)
            )
        )

    @property
    def receptive_field(self) -> int:
        """Intervals that the last one sees, itself included."""
        return 1 + 2 * (self.config.kernel_width - 1) * ((1 << self.config.layers) - 1)

    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, d)."""
        grid = grid_of(batch, self.codes, self.steps, self.config.bin_hours)
        x = grid_features(grid, self.time_scale_hours).transpose(1, 2)  # (B, 3V, T)
        last: Tensor = self.blocks(x)[:, :, -1]
        return last
