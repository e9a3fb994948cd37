"""STraTS: a transformer over triplets, pooled by fusion attention, pretrained by forecasting.

Tipirneni, Reddy, arXiv 2107.14293, sections 3.2 and 3.3 (https://arxiv.org/abs/2107.14293), in the form
that its authors now publish (https://github.com/sindhura97/STraTS: GELU, and the mean of a layer's input
and output where the paper has ReLU and layer norms, since that did better).

    e      (B, L, d)   e^f + e^v + e^t; e^v, e^t: FFN 1 -> sqrt(d) -> d, tanh      embedding.py
    x      (B, L, d)   layers: (x + attention(x)) / 2, then (x + FFN(x)) / 2
    z      (B, w)      [fusion attention over x, demographics]                     attention.py
    o      (B, V + 1)  W_s z + b: the forecast                                     section 3.3
    logit  (B,)        w^T o + b: the label is read from the forecast

Departs from the paper: no dropout on attention weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.attention import FusionAttention, SelfAttention
from hymate.model.baselines.baseline import Baseline
from hymate.model.dropout import Dropout
from hymate.model.embedding import TripletEmbedding
from hymate.model.heads import ClassificationHead
from hymate.model.layers import Linear

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import STraTSConfig


class HalvingLayer(nn.Module):
    """Transformer layer without norms: each part's output is averaged with its input."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(d_model, heads)
        self.ffn_in = Linear(d_model, 2 * d_model)
        self.ffn_out = Linear(2 * d_model, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, d), mask (B, L) -> (B, L, d)."""
        x = (x + self.dropout(self.attention(x, mask))) / 2
        x = (x + self.dropout(self.ffn_out(F.gelu(self.ffn_in(x))))) / 2
        return x


class STraTS(Baseline):
    """Triplets, transformer, fusion attention."""

    config: STraTSConfig

    def __init__(self, config: STraTSConfig, codes: int, static_width: int, time_scale_hours: float) -> None:
        d = config.d_model
        super().__init__(config, codes, static_width, d)
        self.embedding = TripletEmbedding(codes, d, time_scale_hours)
        self.embedding_dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            HalvingLayer(d, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.fusion = FusionAttention(d)
        self.classification_head = ClassificationHead(codes + 1)

    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, d)."""
        x = self.embedding_dropout(self.embedding(batch))  # (B, L, d)
        for layer in self.layers:
            x = layer(x, batch.mask)
        pooled: Tensor = self.fusion(x, batch.mask)
        return pooled

    def classify(self, batch: TripletBatch) -> Tensor:
        """-> logits (B,), through the forecast."""
        logits: Tensor = self.classification_head(self.forecast(batch))
        return logits
