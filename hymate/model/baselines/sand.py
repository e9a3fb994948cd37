"""SAnD: masked self-attention over an hourly table, then dense interpolation to a few vectors.

Song, Rajan, Thiagarajan, Spanias, "Attend and diagnose", arXiv 1711.03905, section 3
(https://arxiv.org/abs/1711.03905).

    x      (B, T, 3V)   [filled values, masks, times]                     grid.py
    e      (B, T, d)    W x + position, a table that is learned           "Input embedding"
    block               norm(e + attention), norm(e + FFN); FFN d -> 2d -> d with ReLU   "Attention module"
           attention    of t sees t - span, ..., t                        masked, causal
    u      (B, M d)     u_m = sum_t w_tm e_t,  w_tm = (1 - |s_t - m| / M)^2,  s_t = M t / T    algorithm 1
                        t = 1 ... T, m = 1 ... M
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.baselines.baseline import Baseline
from hymate.model.baselines.grid import grid_features, grid_of, intervals
from hymate.model.dropout import Dropout

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import SAnDConfig


def interpolation_weights(steps: int, factors: int) -> Tensor:
    """w (T, M) of algorithm 1."""
    t = torch.arange(1, steps + 1)[:, None]
    m = torch.arange(1, factors + 1)
    return (1.0 - (factors * t / steps - m).abs() / factors) ** 2


def span_mask(steps: int, span: int) -> Tensor:
    """(T, T) bool: whether row t sees column u, t - span <= u <= t."""
    t = torch.arange(steps)
    back = t[:, None] - t
    return (back >= 0) & (back <= span)


class SpanAttentionBlock(nn.Module):
    """Attention among near intervals and a feed-forward network, each with residual and norm after it."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.attention_norm = nn.LayerNorm(d_model)
        self.ffn_in = nn.Linear(d_model, 2 * d_model)
        self.ffn_out = nn.Linear(2 * d_model, d_model)
        self.ffn_norm = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, sees: Tensor) -> Tensor:
        """x (B, T, d), sees (T, T) -> (B, T, d)."""
        y = self.dropout(self.out(self._attend(self.qkv(x), sees)))
        x = self.attention_norm(x + y)
        y = self.dropout(self.ffn_out(F.relu(self.ffn_in(x))))
        out: Tensor = self.ffn_norm(x + y)
        return out

    def _attend(self, qkv: Tensor, sees: Tensor) -> Tensor:
        stays, steps, width = qkv.shape
        split = qkv.view(stays, steps, 3, self.heads, width // (3 * self.heads))
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, k) each
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=sees)
        return y.transpose(1, 2).reshape(stays, steps, width // 3)


class SAnD(Baseline):
    """The stay is M vectors of width d, side by side."""

    can_forecast = False
    config: SAnDConfig

    def __init__(self, config: SAnDConfig, codes: int, static_width: int, time_scale_hours: float) -> None:
        d = config.d_model
        super().__init__(config, codes, static_width, d * config.interpolation)
        self.time_scale_hours = time_scale_hours
        self.steps = intervals(time_scale_hours, config.bin_hours)
        self.input = nn.Linear(3 * codes, d)
        self.position = nn.Embedding(self.steps, d)
        self.input_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            SpanAttentionBlock(d, config.heads, config.dropout) for _ in range(config.layers)
        )

    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, M d)."""
        grid = grid_of(batch, self.codes, self.steps, self.config.bin_hours)
        x = self.input(grid_features(grid, self.time_scale_hours))  # (B, T, d)
        x = self.input_dropout(x + self.position(torch.arange(self.steps, device=x.device)))
        sees = span_mask(self.steps, self.config.span).to(x.device)
        for block in self.blocks:
            x = block(x, sees)
        weights = interpolation_weights(self.steps, self.config.interpolation).to(x)
        return torch.einsum("btd,tm->bmd", x, weights).flatten(1)
