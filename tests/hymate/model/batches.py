"""Batches with known content, built by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hymate.config import ModelConfig
from hymate.data.batching import TripletBatch

CODES, STATIC = 11, 3
SMALL = ModelConfig(d_model=16, mamba_blocks=2, d_state=4, attention_heads=2, d_static=4, dropout=0.1)

Stay = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # hours, code, value, static


def random_stay(length: int, seed: int) -> Stay:
    draw = torch.Generator().manual_seed(seed)
    hours = (torch.rand(length, generator=draw) * 48).sort().values
    code = torch.randint(1, CODES + 1, (length,), generator=draw)
    return (
        hours,
        code,
        torch.randn(length, generator=draw),
        torch.randn(STATIC, generator=draw),
    )


def batch_of(stays: Sequence[Stay], extra: int = 0) -> TripletBatch:
    """Stays as rows, right-padded to the longest and `extra` columns more."""
    longest = max((stay[0].numel() for stay in stays), default=0) + extra
    shape = (len(stays), longest)
    time, value = torch.zeros(shape), torch.zeros(shape)
    code, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    for row, (hours, codes, values, _) in enumerate(stays):
        length = hours.numel()
        time[row, :length], code[row, :length], value[row, :length] = hours, codes, values
        mask[row, :length] = True
    static = torch.stack([stay[3] for stay in stays]) if stays else torch.zeros(0, STATIC)
    return TripletBatch(time, code, value, mask, static, torch.zeros(len(stays)), torch.arange(len(stays)))
