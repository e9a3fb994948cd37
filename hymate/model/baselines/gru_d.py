"""GRU-D: what was last measured fades towards the mean, and so does the hidden state.

Che, Purushotham, Cho, Sontag, Liu, "Recurrent neural networks for multivariate time series with
missing values", arXiv 1606.01865, section 2.3, equations 8 to 14 (https://arxiv.org/abs/1606.01865).

    m, delta     (B, T, V)   mask, days since the last observation              grid.py
    x_last       (B, T, V)   last observed value; 0 before the first
    gamma_x      (B, T, V)   exp(-max(0, w_x * delta + b_x)), w_x diagonal
    gamma_h      (B, T, d)   exp(-max(0, W_h delta + b_h))
    x_hat        (B, T, V)   m x + (1 - m)(gamma_x x_last + (1 - gamma_x) mean);  mean 0: values are z-scores
    h            (B, d)      gamma_h h, then the GRU with x_hat and m as input:
        z = sigmoid(W_z x_hat + U_z h + V_z m + b_z),  r likewise
        c = tanh(W x_hat + U (r h) + V m + b)
        h = (1 - z) h + z c

Departs from the paper: intervals of `bin_hours` instead of a step at every observation time; dropout on
the last hidden state only, and no batch normalisation before the head. First decay rates are positive
(uniform to 1 / sqrt(V) per day): at or below 0 the max would pass no gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.baselines.baseline import Baseline
from hymate.model.baselines.grid import grid_of, intervals
from hymate.model.dropout import Dropout

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import GRUDConfig

HOURS_PER_DAY = 24.0


class InputDecay(nn.Module):
    """gamma_x: every variable fades at a rate of its own."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(codes) / codes**0.5)
        self.bias = nn.Parameter(torch.zeros(codes))

    def forward(self, delta: Tensor) -> Tensor:
        """delta (B, T, V) -> (B, T, V), in (0, 1]."""
        return torch.exp(-(self.weight * delta + self.bias).clamp(min=0.0))


class HiddenDecay(nn.Linear):
    """gamma_h: every hidden unit fades by how long each variable has been missing."""

    def __init__(self, codes: int, d_model: int) -> None:
        super().__init__(codes, d_model)
        with torch.no_grad():
            self.weight.abs_()
            self.bias.zero_()

    def forward(self, delta: Tensor) -> Tensor:
        """delta (B, T, V) -> (B, T, d), in (0, 1]."""
        return torch.exp(-super().forward(delta).clamp(min=0.0))


class GRUD(Baseline):
    """One layer; the last hidden state is the stay."""

    can_forecast = False
    config: GRUDConfig

    def __init__(self, config: GRUDConfig, codes: int, static_width: int, time_scale_hours: float) -> None:
        d = config.d_model
        super().__init__(config, codes, static_width, d)
        self.steps = intervals(time_scale_hours, config.bin_hours)
        self.input_decay = InputDecay(codes)
        self.hidden_decay = HiddenDecay(codes, d)
        self.input = nn.Linear(2 * codes, 3 * d)  # [W, V] of z, r and c, with their biases
        self.gates = nn.Linear(d, 2 * d, bias=False)  # U_z, U_r
        self.candidate = nn.Linear(d, d, bias=False)  # U
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.zeros_(self.input.bias)
        for recurrent in (*self.gates.weight.data.chunk(2), self.candidate.weight.data):
            nn.init.orthogonal_(recurrent)
        self.dropout = Dropout(config.dropout)

    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, d)."""
        grid = grid_of(batch, self.codes, self.steps, self.config.bin_hours)
        delta = (grid.since / HOURS_PER_DAY).to(grid.value.dtype)
        x_hat = torch.where(grid.seen, grid.value, self.input_decay(delta) * grid.filled)
        driven = self.input(torch.cat([x_hat, grid.seen.to(x_hat.dtype)], dim=-1))  # (B, T, 3d)
        last: Tensor = self.dropout(self._recur(driven, self.hidden_decay(delta)))
        return last

    def _recur(self, driven: Tensor, fading: Tensor) -> Tensor:
        """What the inputs give z, r and c (B, T, 3d), gamma_h (B, T, d) -> h after the last step (B, d)."""
        d = fading.shape[-1]
        h = fading.new_zeros(fading.shape[0], d)
        for step, gamma in zip(driven.unbind(1), fading.unbind(1), strict=True):
            h = gamma * h
            z, r = torch.sigmoid(step[:, : 2 * d] + self.gates(h)).chunk(2, dim=-1)
            c = torch.tanh(step[:, 2 * d :] + self.candidate(r * h))
            h = torch.lerp(h, c, z)
        return h
