"""What all neural baselines share: demographics and heads are HyMaTE's, so sequence models are compared.

B, L, V, S   stays in the batch, padded length, codes, demographics
p            width of the sequence's vector
s            (B, d_static)     embedding of the demographics            hymate/model/embedding.py
z            (B, p + d_static) [sequence's vector, s]
heads        logits (B,), and forecast (B, V + 1) where the paper pretrains  hymate/model/heads.py
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hymate.data.batching import TripletBatch
from hymate.errors import InputFault
from hymate.model.embedding import StaticEmbedding
from hymate.model.heads import ClassificationHead, ForecastHead
from hymate.model.sequence_model import SequenceModel

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import BaselineConfig


class Baseline(SequenceModel):
    """A baseline says how a stay's observations become one vector: `summarise`."""

    def __init__(self, config: BaselineConfig, codes: int, static_width: int, width: int) -> None:
        """`width` is p."""
        super().__init__()
        self.config = config
        self.codes = codes
        self.width = width + (config.d_static if static_width else 0)
        self.static = StaticEmbedding(static_width, config.d_static) if static_width else None
        self.classification_head = ClassificationHead(self.width)
        self.forecast_head = ForecastHead(self.width, codes) if self.can_forecast else None

    @abstractmethod
    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, p)."""

    def encode(self, batch: TripletBatch) -> Tensor:
        """-> z (B, p + d_static)."""
        sequence = self.summarise(batch)
        if self.static is None:
            return sequence
        return torch.cat([sequence, self.static(batch.static)], dim=-1)

    def classify(self, batch: TripletBatch) -> Tensor:
        """-> logits (B,)."""
        logits: Tensor = self.classification_head(self.encode(batch))
        return logits

    def forecast(self, batch: TripletBatch) -> Tensor:
        """-> (B, V + 1); `InputFault` for a model that is trained on labels alone."""
        if self.forecast_head is None:
            where, what = f"model {type(self).__name__}", "learns from labels alone, it cannot forecast"
            raise InputFault(where, what, "set pretrain.rounds to 0")
        values: Tensor = self.forecast_head(self.encode(batch))
        return values
