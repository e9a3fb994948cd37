"""Transformer on triplets and nothing else: HyMaTE's attention layers without Mamba and fusion attention.

Vaswani et al., arXiv 1706.03762, section 3.1 (https://arxiv.org/abs/1706.03762), with the norm before
each part, over the triplet embedding of HyMaTE (arXiv 2509.24118, section 3).

    e       (B, L, d)   triplet embedding, e^f + e^v + e^t; its e^t is the position     embedding.py
    x       (B, L, d)   attention layers                                                attention.py
    mean    (B, d)      over the real observations, normed; zero without any
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.attention import AttentionLayer
from hymate.model.baselines.baseline import Baseline
from hymate.model.dropout import Dropout
from hymate.model.embedding import TripletEmbedding
from hymate.model.layers import RMSNorm

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import TransformerConfig


class TransformerOnly(Baseline):
    """Triplets and attention layers."""

    config: TransformerConfig

    def __init__(
        self, config: TransformerConfig, codes: int, static_width: int, time_scale_hours: float
    ) -> None:
        d = config.d_model
        super().__init__(config, codes, static_width, d)
        self.embedding = TripletEmbedding(codes, d, time_scale_hours)
        self.embedding_dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            AttentionLayer(d, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = RMSNorm(d)

    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, d)."""
        x = self.embedding_dropout(self.embedding(batch))  # (B, L, d)
        for layer in self.layers:
            x = layer(x, batch.mask)
        x = self.norm(x).masked_fill(~batch.mask[:, :, None], 0.0)
        mean: Tensor = x.sum(dim=1) / batch.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return mean
