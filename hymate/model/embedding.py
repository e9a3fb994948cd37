"""From triplets (time, feature, value) and demographics to vectors.

HyMaTE, arXiv 2509.24118, section 3 ("Input embedding"); the feed-forward networks on scalars are
STraTS' continuous value embedding, arXiv 2107.14293, section 3.2.1.

    B, L, d      batch, padded length, d_model
    V            codes in the vocabulary; index 0 is padding
    f, v, t      (B, L)      code index, z-score, hours since the window's start
    e^f          (B, L, d)   row f of a table
    e^v, e^t     (B, L, d)   FFN(v), FFN(t):  1 -> sqrt(d) -> d, tanh between
    e            (B, L, d)   e^f + e^v + e^t, zero where padding is (two other ways: for comparison)
    S, d_static  width of the demographics and of their embedding
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from statistics import NormalDist

import torch
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.layers import Linear

BINS = 10
EDGES = tuple(NormalDist().inv_cdf(i / BINS) for i in range(1, BINS))


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


class ObservationEmbedding(nn.Module, ABC):
    """A batch's observations as vectors. `value_clip` bounds the z-scores."""

    def __init__(self, value_clip: float | None) -> None:
        super().__init__()
        self.value_clip = value_clip

    def forward(self, batch: TripletBatch) -> Tensor:
        """-> (B, L, d), exactly zero where `batch.mask` is False, whatever stands there."""
        padding = ~batch.mask
        code = batch.code.masked_fill(padding, 0)
        value = self.clipped(batch.value.masked_fill(padding, 0.0))
        e = self.embed(batch.time.masked_fill(padding, 0.0), code, value)
        return e.masked_fill(padding.unsqueeze(-1), 0.0)

    def clipped(self, value: Tensor) -> Tensor:
        """Values as the model sees them."""
        return value if self.value_clip is None else value.clamp(-self.value_clip, self.value_clip)

    @abstractmethod
    def embed(self, time: Tensor, code: Tensor, value: Tensor) -> Tensor:
        """time, code, value (B, L) -> (B, L, d)."""


class TripletEmbedding(ObservationEmbedding):
    """e = e^f + e^v + e^t (HyMaTE section 3).

    With `affine`, e^v = (1 + gamma_f) FFN(v), gamma zero at first: the same number may mean much in one
    code and little in another.
    """

    def __init__(
        self,
        codes: int,
        d_model: int,
        time_scale_hours: float,
        value_clip: float | None = None,
        affine: bool = False,
    ) -> None:
        super().__init__(value_clip)
        self.time_scale_hours = time_scale_hours
        of_feature, of_value, of_time = self.widths(d_model)
        self.feature = nn.Embedding(codes + 1, of_feature, padding_idx=0)
        self.gain = nn.Embedding(codes + 1, of_value, padding_idx=0) if affine else None
        if self.gain is not None:
            nn.init.zeros_(self.gain.weight)
        self.value = ScalarEmbedding(of_value)
        self.time = ScalarEmbedding(of_time)

    def widths(self, d_model: int) -> tuple[int, int, int]:
        """Of e^f, e^v and e^t."""
        return d_model, d_model, d_model

    def embed(self, time: Tensor, code: Tensor, value: Tensor) -> Tensor:
        # The look-back window becomes [-1, 1], where tanh is neither flat nor saturated.
        e_t = self.time(time * (2.0 / self.time_scale_hours) - 1.0)
        e_v = self.value(value)
        if self.gain is not None:
            e_v = e_v + e_v * self.gain(code)
        return self.joined(self.feature(code), e_v, e_t)

    def joined(self, e_f: Tensor, e_v: Tensor, e_t: Tensor) -> Tensor:
        """The parts as one vector, (B, L, d)."""
        return e_f + e_v + e_t


class ConcatenatedTriplets(TripletEmbedding):
    """e = [e^f, e^v, e^t], each with a third of d_model of its own; what does not divide goes to e^f.

    In a sum, two triplets whose parts differ can have the same vector ("semantic collision"), the more
    so the smaller d_model; side by side they cannot. HyMaTE compares both; its text is not said to give
    the shares, so they are equal here.
    """

    def widths(self, d_model: int) -> tuple[int, int, int]:
        return d_model - 2 * (d_model // 3), d_model // 3, d_model // 3

    def joined(self, e_f: Tensor, e_v: Tensor, e_t: Tensor) -> Tensor:
        return torch.cat([e_f, e_v, e_t], dim=-1)


class CodeValueTokens(ObservationEmbedding):
    """No triplets: an observation is one token, its code and the bin of its value; order alone is time.

    What sequence models of records without a triplet embedding do: values cut into bins beside their
    code as tokens of a table, as in EHRMamba (arXiv 2405.14567, section 3). The bins are the deciles of
    the standard normal, since values are z-scores; codes without values fall into one bin.
    """

    def __init__(self, codes: int, d_model: int, value_clip: float | None = None) -> None:
        super().__init__(value_clip)
        self.token = nn.Embedding((codes + 1) * BINS, d_model)

    def embed(self, time: Tensor, code: Tensor, value: Tensor) -> Tensor:
        """`time` is not read."""
        edges = value.new_tensor(EDGES)
        embedded: Tensor = self.token(code * BINS + torch.bucketize(value, edges, right=True))
        return embedded


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
