"""From triplets (time, feature, value) and demographics to vectors.

HyMaTE, arXiv 2509.24118, section 3 ("Input embedding"); the feed-forward networks on scalars are
STraTS' continuous value embedding, arXiv 2107.14293, section 3.2.1.

    B, L, d      batch, padded length, d_model
    V            codes in the vocabulary; index 0 is padding
    f, v, t      (B, L)      code index, z-score, hours since the window's start
    e^f          (B, L, d)   row f of a table
    e^v, e^t     (B, L, d)   FFN(v), FFN(t):  1 -> sqrt(d) -> d, tanh between
    e            (B, L, d)   e^f + e^v + e^t, zero where padding is
    S, d_static  width of the demographics and of their embedding
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.layers import Linear


class ScalarEmbedding(nn.Module):
    """FFN of one number: 1 -> sqrt(d) -> d with tanh between (STraTS section 3.2.1: no second bias)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        hidden = max(1, math.isqrt(d_model))
        self.hidden = Linear(1, hidden)
        self.out = Linear(hidden, d_model, bias=False)
        for layer in (self.hidden, self.out):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.hidden.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L) -> (B, L, d)."""
        embedded: Tensor = self.out(torch.tanh(self.hidden(x.unsqueeze(-1))))  # (B, L, 1) -> (B, L, d)
        return embedded


class TripletEmbedding(nn.Module):
    """e = e^f + e^v + e^t (HyMaTE section 3).

    `value_clip` bounds the z-scores; with `affine`, e^v = (1 + gamma_f) FFN(v), gamma zero at first: the
    same number may mean much in one code and little in another.
    """

    def __init__(
        self,
        codes: int,
        d_model: int,
        time_scale_hours: float,
        value_clip: float | None = None,
        affine: bool = False,
    ) -> None:
        super().__init__()
        self.time_scale_hours = time_scale_hours
        self.value_clip = value_clip
        self.feature = nn.Embedding(codes + 1, d_model, padding_idx=0)
        self.gain = nn.Embedding(codes + 1, d_model, padding_idx=0) if affine else None
        if self.gain is not None:
            nn.init.zeros_(self.gain.weight)
        self.value = ScalarEmbedding(d_model)
        self.time = ScalarEmbedding(d_model)

    def forward(self, batch: TripletBatch) -> Tensor:
        """-> (B, L, d), exactly zero where `batch.mask` is False, whatever stands there."""
        padding = ~batch.mask
        code = batch.code.masked_fill(padding, 0)
        value = self.clipped(batch.value.masked_fill(padding, 0.0))
        # The look-back window becomes [-1, 1], where tanh is neither flat nor saturated.
        time = batch.time.masked_fill(padding, 0.0) * (2.0 / self.time_scale_hours) - 1.0
        e_v = self.value(value)
        if self.gain is not None:
            e_v = e_v + e_v * self.gain(code)
        e: Tensor = self.feature(code) + e_v + self.time(time)  # (B, L, d)
        return e.masked_fill(padding.unsqueeze(-1), 0.0)

    def clipped(self, value: Tensor) -> Tensor:
        """Values as the model sees them."""
        return value if self.value_clip is None else value.clamp(-self.value_clip, self.value_clip)


class StaticEmbedding(nn.Module):
    """FFN of the demographics: S -> 2 d_static -> d_static, tanh between (STraTS section 3.2.4)."""

    def __init__(self, static_width: int, d_static: int) -> None:
        super().__init__()
        self.hidden = Linear(static_width, 2 * d_static)
        self.out = Linear(2 * d_static, d_static)

    def forward(self, static: Tensor) -> Tensor:
        """static (B, S) -> (B, d_static)."""
        embedded: Tensor = self.out(torch.tanh(self.hidden(static)))
        return embedded
