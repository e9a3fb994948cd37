"""Self-attention over a stay's observations, and what pools them to one vector.

HyMaTE, arXiv 2509.24118, section 3; fusion attention is STraTS', arXiv 2107.14293, section 3.2.3.

    B, L, d      batch, padded length, d_model
    H, k         heads, width of a head: H k = d
    qkv          (B, L, 3 H k)  queries, keys, values; ops/attention.py
    c            (B, L, d)   contextual embeddings, the input of the fusion
    a            (B, L)      u^T tanh(W c + b), then softmax over the real observations
    pooled       (B, d)      sum_i a_i c_i; zero for a stay without observations
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymate.model.dropout import Dropout
from hymate.model.layers import Linear, RMSNorm
from hymate.ops.attention import attention


class SelfAttention(nn.Module):
    """Multi-head attention among real observations, or those within `window`: (B, L, d) -> (B, L, d)."""

    def __init__(self, d_model: int, heads: int, window: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = Linear(d_model, 3 * d_model)
        self.out = Linear(d_model, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, d), mask (B, L) True where an observation is, on the left -> (B, L, d)."""
        # No dropout on the attention weights: they are never in memory all at once.
        y = attention(self.qkv(x), mask.sum(dim=1), self.heads, self.window)  # (B, L, 3d) -> (B, L, d)
        out: Tensor = self.out(y)
        return out


class AttentionLayer(nn.Module):
    """Transformer layer, pre-norm: self-attention, then FFN d -> 2d -> d with GELU."""

    def __init__(self, d_model: int, heads: int, dropout: float, window: int | None = None) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(d_model)
        self.attention = SelfAttention(d_model, heads, window)
        self.ffn_norm = RMSNorm(d_model)
        self.ffn_in = Linear(d_model, 2 * d_model)
        self.ffn_out = Linear(2 * d_model, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, d), mask (B, L) -> (B, L, d)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        x = x + self.dropout(self.ffn_out(F.gelu(self.ffn_in(self.ffn_norm(x)))))
        return x


class Pooling(nn.Module, ABC):
    """A stay's observations as one vector: their sum, each with a weight."""

    @abstractmethod
    def weights(self, c: Tensor, mask: Tensor) -> Tensor:
        """c (B, L, d), mask (B, L) -> weights (B, L): sum to 1, or all 0 without observations."""

    def forward(self, c: Tensor, mask: Tensor) -> Tensor:
        """c (B, L, d), mask (B, L) -> pooled (B, d)."""
        return torch.einsum("bl,bld->bd", self.weights(c, mask), c)


class FusionAttention(Pooling):
    """a_i = u^T tanh(W c_i + b), softmax."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.hidden = Linear(d_model, d_model)
        self.score = Linear(d_model, 1, bias=False)  # a bias would cancel in the softmax

    def weights(self, c: Tensor, mask: Tensor) -> Tensor:
        a: Tensor = self.score(torch.tanh(self.hidden(c))).squeeze(-1)  # (B, L)
        lowest = torch.finfo(a.dtype).min  # finite: a row of padding stays finite
        return a.masked_fill(~mask, lowest).softmax(dim=1).masked_fill(~mask, 0.0)


class MeanPooling(Pooling):
    """Every observation counts the same. No parameters."""

    def weights(self, c: Tensor, mask: Tensor) -> Tensor:
        real = mask.to(c.dtype)
        return real / real.sum(dim=1, keepdim=True).clamp(min=1.0)


class LastPooling(Pooling):
    """The last observation alone counts, as in EHRMamba (arXiv 2405.14567). No parameters."""

    def weights(self, c: Tensor, mask: Tensor) -> Tensor:
        at = torch.arange(mask.shape[1], device=mask.device)
        return (at == mask.sum(dim=1, keepdim=True) - 1).to(c.dtype)


def make_pooling(kind: str, d_model: int) -> Pooling:
    """The pooling of `ModelConfig.pooling`."""
    if kind == "fusion":
        return FusionAttention(d_model)
    return MeanPooling() if kind == "mean" else LastPooling()
