"""Mamba on triplets and nothing else: what the scan does without attention.

After EHRMamba, Fallahpour, Alinoori, Ye, Cao, Afkanpour, Krishnan, arXiv 2405.14567, section 3
(https://arxiv.org/abs/2405.14567): Mamba blocks over the record, the last observation is the stay.

    e       (B, L, d)   triplet embedding, e^f + e^v + e^t            embedding.py
    x       (B, L, d)   Mamba blocks                                  mamba.py
    last    (B, d)      x at the last real observation, normed; zero without observations

Departs from the paper: triplets with values in place of code, visit and segment tokens; pretraining by
masked forecasting, as HyMaTE, in place of masked codes; HyMaTE's depth and width in place of 32 x 768.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.baselines.baseline import Baseline
from hymate.model.dropout import Dropout
from hymate.model.embedding import TripletEmbedding
from hymate.model.layers import RMSNorm
from hymate.model.mamba import MambaBlock

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import MambaConfig


class MambaOnly(Baseline):
    """Triplets and Mamba blocks."""

    config: MambaConfig

    def __init__(self, config: MambaConfig, codes: int, static_width: int, time_scale_hours: float) -> None:
        d = config.d_model
        super().__init__(config, codes, static_width, d)
        self.embedding = TripletEmbedding(codes, d, time_scale_hours)
        self.embedding_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            MambaBlock(d, config.d_state, config.d_conv, config.expand, config.dropout)
            for _ in range(config.layers)
        )
        self.norm = RMSNorm(d)

    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, d)."""
        x = self.embedding_dropout(self.embedding(batch))  # (B, L, d)
        for block in self.blocks:
            x = block(x)
        observations = batch.mask.sum(dim=1)
        stay = torch.arange(len(observations), device=x.device)
        last = x[stay, (observations - 1).clamp(min=0)]  # without any: padding, which the blocks leave at 0
        normed: Tensor = self.norm(last[:, None]).squeeze(1)  # (B, 1, d): the norm's shape
        return normed
