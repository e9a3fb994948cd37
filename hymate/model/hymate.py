"""HyMaTE: Mamba mixes along time, attention mixes observations, fusion attention pools a stay.

Mottalib, Phan, Beheshti, arXiv 2509.24118, section 3 (https://arxiv.org/html/2509.24118v1).

    B, L, V, S   stays in the batch, padded length, codes, demographics
    d, w         d_model; width of z: d, plus d_static where there are demographics
    e            (B, L, d)     triplet embedding, e^f + e^v + e^t            embedding.py
    x            (B, L, d)     residual stream: Mamba blocks, then           mamba.py
                               self-attention layers                         attention.py
    pooled       (B, d)        fusion attention over real observations       attention.py
    s            (B, d_static) embedding of the demographics                 embedding.py
    z            (B, w)        [pooled, s]
    summary      (B, d_summary) each code's figures, at classification only  summary.py
    heads        forecast (B, V + 1), events (B, V + 1), logits (B,)         heads.py

Padding stands on the right and the Mamba blocks are causal, so padding never reaches a real
observation there. It enters as zero and leaves as zero, since its gate SiLU(0) is closed; attention
and fusion mask it. A stay's output is the same alone or in any batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.errors import InputFault
from hymate.model.attention import AttentionLayer, make_pooling
from hymate.model.dropout import Dropout
from hymate.model.embedding import (
    CodeValueTokens,
    ConcatenatedTriplets,
    ObservationEmbedding,
    StaticEmbedding,
    TripletEmbedding,
)
from hymate.model.heads import ClassificationHead, ForecastHead
from hymate.model.layers import RMSNorm
from hymate.model.mamba import MambaBlock
from hymate.model.reversal import reorder, reversed_order
from hymate.model.sequence_model import SequenceModel
from hymate.model.streaming import StackState, first_block_state, step_block
from hymate.model.summary import SummaryEmbedding

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.config import ModelConfig


class HyMaTE(SequenceModel):
    """The model, its forecasting head and its classification head.

    `codes` is V, `static_width` is S (0: no demographics, z is the pooled sequence alone), and
    `time_scale_hours` the task's look-back. The configuration can take parts away or exchange them
    (`embedding`, `pooling`, `static`, no blocks, no layers, `bidirectional`).

    There are no buffers: Opacus refuses them, and everything that is learned is a parameter.
    """

    def __init__(self, config: ModelConfig, codes: int, static_width: int, time_scale_hours: float) -> None:
        super().__init__()
        d = config.d_model
        self.config = config
        self.codes = codes
        self.static_width = static_width
        if not config.static:
            static_width = 0
        self.width = d + (config.d_static if static_width else 0)
        self.value_clip = config.value_clip

        self.embedding = _make_embedding(config, codes, time_scale_hours)
        self.embedding_dropout = Dropout(config.dropout)
        self.mamba = nn.ModuleList(
            MambaBlock(d, config.d_state, config.d_conv, config.expand, config.dropout)
            for _ in range(config.mamba_blocks)
        )
        self.attention = nn.ModuleList(
            AttentionLayer(d, config.attention_heads, config.dropout, config.attention_window)
            for _ in range(config.attention_layers)
        )
        self.norm = RMSNorm(d)
        self.fusion = make_pooling(config.pooling, d)
        self.static = StaticEmbedding(static_width, config.d_static) if static_width else None
        self.forecast_head = ForecastHead(self.width, codes)
        self.summary = (
            SummaryEmbedding(
                codes,
                static_width,
                config.d_summary,
                config.summary_windows,
                time_scale_hours,
                config.summary_dropout,
                config.summary_input_dropout,
                config.summary_width,
                config.summary_thresholds,
            )
            if config.d_summary
            else None
        )
        self.classification_head = ClassificationHead(self.width + config.d_summary)
        # Last, so that every other part has the first weights it has without.
        self.backward_mamba = nn.ModuleList(
            MambaBlock(d, config.d_state, config.d_conv, config.expand, config.dropout)
            for _ in range(config.mamba_blocks if config.bidirectional else 0)
        )
        self.event_head = ForecastHead(self.width, codes) if config.event_head else None

    def contextualise(self, batch: TripletBatch) -> Tensor:
        """The Mamba stack: -> (B, L, d), what each observation means after those before it."""
        x: Tensor = self.embedding_dropout(self.embedding(batch))  # (B, L, d)
        if self.config.bidirectional:
            order = reversed_order(batch.mask)
            for ahead, back in zip(self.mamba, self.backward_mamba, strict=True):
                # Both are x and what they add to it.
                x = ahead(x) + reorder(back(reorder(x, order)), order) - x
            return x
        for block in self.mamba:
            x = block(x)
        return x

    @property
    def _mamba_blocks(self) -> list[MambaBlock]:
        return [block for block in self.mamba if isinstance(block, MambaBlock)]

    def first_state(self, stays: int) -> StackState:
        """What `step` starts from: nothing observed, for `stays` stays.

        Raises `InputFault` for a bidirectional model.
        """
        if self.config.bidirectional:
            what = "reads a stay from its end too: the next observation changes all before it"
            raise InputFault("model.bidirectional", what, "set it to false to go on step by step")
        return StackState(tuple(first_block_state(block.mixer, stays) for block in self._mamba_blocks))

    def step(self, state: StackState, triplet: TripletBatch) -> tuple[Tensor, StackState]:
        """One more observation of each stay, in constant time and memory.

        `triplet` is a batch of length 1; -> (B, d), equal to `contextualise` at that observation
        without dropout, and the state after it. A stay whose mask is False keeps its state, and gets
        zeros. The state given is not changed. Raises ValueError for another length, or other stays.
        """
        stays, length = triplet.mask.shape
        known = state.blocks[0].h.shape[0] if state.blocks else stays
        if length != 1 or stays != known:
            raise ValueError(f"step takes one observation of each of {known} stays, not {length} of {stays}")
        x, after = self.embedding(triplet).squeeze(1), []
        for block, before in zip(self._mamba_blocks, state.blocks, strict=True):
            x, new = step_block(block, before, x)
            after.append(new.where(triplet.mask[:, 0], before))
        return x.masked_fill(~triplet.mask, 0.0), StackState(tuple(after))

    def pool(self, batch: TripletBatch) -> Tensor:
        """-> pooled (B, d): what the sequence says."""
        if batch.mask.shape[1] == 0:
            batch = _one_padding_column(batch)
        mask = batch.mask
        x = self.contextualise(batch)
        for layer in self.attention:
            x = layer(x, mask)
        pooled: Tensor = self.fusion(self.norm(x), mask)  # (B, L, d) -> (B, d)
        return pooled

    def encode(self, batch: TripletBatch) -> Tensor:
        """-> z (B, w)."""
        return self._with_static(self.pool(batch), batch.static)

    def figures(self, batch: TripletBatch) -> Tensor | None:
        """What the summary branch reads of each stay, constant; None where there is no such branch."""
        if self.summary is None:
            return None
        if batch.mask.shape[1] == 0:
            batch = _one_padding_column(batch)
        return self.summary.inputs(batch, self.embedding.clipped(batch.value))

    def classify(self, batch: TripletBatch) -> Tensor:
        """-> logits (B,)."""
        return self.classify_pooled(self.pool(batch), batch.static, self.figures(batch))

    def classify_pooled(self, pooled: Tensor, static: Tensor, figures: Tensor | None) -> Tensor:
        """pooled (B, d), static (B, S), figures as `figures` gives them -> logits (B,)."""
        z = self._with_static(pooled, static)
        if self.summary is not None and figures is not None:
            seen = static if self.config.static else static[:, :0]
            z = torch.cat([z, self.summary.embed(figures, seen)], dim=-1)
        logits: Tensor = self.classification_head(z)
        return logits

    def _with_static(self, pooled: Tensor, static: Tensor) -> Tensor:
        return pooled if self.static is None else torch.cat([pooled, self.static(static)], dim=-1)

    def forecast(self, batch: TripletBatch) -> Tensor:
        """-> (B, V + 1): each code's first value after the batch's last observation, as z-score."""
        values: Tensor = self.forecast_head(self.encode(batch))
        return values

    def forecast_with_events(self, batch: TripletBatch) -> tuple[Tensor, Tensor]:
        """-> values as `forecast`, and log odds that each code is measured next, (B, V + 1) both."""
        assert self.event_head is not None  # `config.event_head`
        z = self.encode(batch)
        return self.forecast_head(z), self.event_head(z)


def _make_embedding(config: ModelConfig, codes: int, time_scale_hours: float) -> ObservationEmbedding:
    if config.embedding == "code_value":
        return CodeValueTokens(codes, config.d_model, config.value_clip)
    kind = ConcatenatedTriplets if config.embedding == "concat" else TripletEmbedding
    affine = config.value_embedding == "affine"
    return kind(codes, config.d_model, time_scale_hours, config.value_clip, affine)


def build_model(
    config: ModelConfig, codes: int, static_width: int, time_scale_hours: float, seed: int
) -> HyMaTE:
    """HyMaTE with first weights that depend on `seed` alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HyMaTE(config, codes, static_width, time_scale_hours)


def _one_padding_column(batch: TripletBatch) -> TripletBatch:
    """A batch of length 0 (no stay has an observation) as one of length 1, all padding."""
    time, code, value, mask = (F.pad(x, (0, 1)) for x in (batch.time, batch.code, batch.value, batch.mask))
    return TripletBatch(time, code, value, mask, batch.static, batch.label, batch.row)
