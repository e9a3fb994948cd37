"""From the summary branch's figures back to the observations they were made of.

A figure's attribution goes to the observations that make it, so that a clinician sees it where it was
measured, and no amount is lost:

    first, last, recency, lowest, highest     to that observation (ties share alike)
    present, count, mean, deviation, slope    to all of the code's observations in the window, alike

    B, L, V      stays, padded length, codes
    P            figures of a code, `FIGURES` for each window in turn
"""

from __future__ import annotations

import torch
from torch import Tensor

from hymate.data.batching import TripletBatch
from hymate.model.summary import FIGURES, SummaryEmbedding

_PLACED = {"first": ("first",), "last": ("last", "recency"), "lowest": ("lowest",), "highest": ("highest",)}
_SHARED = ("present", "count", "mean", "deviation", "slope")


def shared(amounts: Tensor, batch: TripletBatch, value: Tensor, summary: SummaryEmbedding) -> Tensor:
    """amounts (B, V + 1, P) of figures, value (B, L) as the branch sees it -> (B, L), 0 at padding."""
    share = torch.zeros_like(value)
    for number, (begin, end, final) in enumerate(summary.spans):
        of = amounts[:, :, number * len(FIGURES) : (number + 1) * len(FIGURES)]
        seen = batch.mask & (batch.time >= begin) & ((batch.time < end) | final)
        where = torch.where(seen, batch.code, 0)
        for names, chosen in _choices(seen, where, value, of.shape[1]):
            amount = of[:, :, [FIGURES.index(name) for name in names]].sum(dim=2)
            count = torch.zeros_like(amount).scatter_add_(1, where, chosen.to(amount.dtype))
            share += torch.where(chosen, (amount / count.clamp(min=1.0)).gather(1, where), 0.0)
    return share


def _choices(seen: Tensor, where: Tensor, value: Tensor, cells: int) -> list[tuple[tuple[str, ...], Tensor]]:
    """Which observations (B, L) each group of figures belongs to."""

    def extreme(of: Tensor, kind: str) -> Tensor:
        found = of.new_zeros(len(of), cells).scatter_reduce_(1, where, of, kind, include_self=False)
        return seen & (of == found.gather(1, where))

    position = torch.arange(seen.shape[1], device=seen.device).expand(seen.shape)
    chosen = {
        "first": extreme(position, "amin"),
        "last": extreme(position, "amax"),
        "lowest": extreme(value, "amin"),
        "highest": extreme(value, "amax"),
    }
    return [(_SHARED, seen), *((names, chosen[place]) for place, names in _PLACED.items())]
