"""Triplets as a table: one row per interval of time, one column per variable.

    B, L, V     stays in the batch, padded length, codes
    T           intervals: the look-back divided by their length, rounded up
    row t       observations with t <= time / length < t + 1; the window's very end belongs to the last
    column v    vocabulary index v + 1

The table covers the whole look-back whatever the batch holds, so padding cannot change it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from hymate.data.batching import TripletBatch


@dataclass(frozen=True)
class Grid:
    """| field  | shape     | dtype   | meaning                                                     |
    |--------|-----------|---------|-------------------------------------------------------------|
    | value  | (B, T, V) | float32 | last z-score in the interval; 0, the mean, where none is    |
    | seen   | (B, T, V) | bool    | whether the variable was observed in the interval           |
    | hours  |           | float   | length of an interval                                       |
    """

    value: Tensor
    seen: Tensor
    hours: float

    @cached_property
    def _latest(self) -> Tensor:
        """(B, T, V) int64: latest interval up to and including t with an observation; -1 before the first."""
        step = torch.arange(self.seen.shape[1], device=self.seen.device)[:, None]
        return torch.where(self.seen, step, -1).cummax(dim=1).values

    @property
    def filled(self) -> Tensor:
        """(B, T, V): value, else the last one before; 0, the mean, before the first."""
        # `value` is 0 at interval 0 where nothing was seen there, which is what "never" needs.
        return self.value.gather(1, self._latest.clamp(min=0))

    @property
    def since(self) -> Tensor:
        """(B, T, V): hours from the last observation *before* interval t, or from the window's start.

        Delta of GRU-D (arXiv 1606.01865, section 2.1) with t hours as the times s_t.
        """
        steps = self.seen.shape[1]
        before = F.pad(self._latest, (0, 0, 1, 0))[:, :steps].clamp(min=0)
        step = torch.arange(steps, device=self.seen.device)[:, None]
        return (step - before) * self.hours


def intervals(lookback_hours: float, bin_hours: float) -> int:
    """T. A last interval may be shorter than the others."""
    return math.ceil(lookback_hours / bin_hours - 1e-9)


def grid_of(batch: TripletBatch, codes: int, steps: int, bin_hours: float) -> Grid:
    """The batch as a table of `steps` intervals of `bin_hours` and `codes` variables."""
    stays, length = batch.mask.shape
    padding = ~batch.mask
    step = (batch.time.masked_fill(padding, 0.0) / bin_hours).long().clamp(0, steps - 1)  # (B, L)
    code = batch.code.masked_fill(padding, 0)
    cell = step * (codes + 1) + code  # padding falls into column 0, which is cut off
    # Observations are ascending in time: the one furthest right in a cell is its last. 0 is none.
    place = torch.arange(1, length + 1, device=cell.device).expand(stays, length)
    last = cell.new_zeros(stays, steps * (codes + 1)).scatter_reduce(1, cell, place, "amax")
    value = F.pad(batch.value.masked_fill(padding, 0.0), (1, 0)).gather(1, last)
    shape = (stays, steps, codes + 1)
    return Grid(value.view(shape)[:, :, 1:], last.view(shape)[:, :, 1:] > 0, bin_hours)


def grid_features(grid: Grid, lookback_hours: float) -> Tensor:
    """(B, T, 3V): values filled forward, masks, times since the last observation as share of the look-back.

    What STraTS' comparison feeds GRU, TCN and SAnD (arXiv 2107.14293, section 4.2); it fills with the
    mean instead of forward.
    """
    since = grid.since / lookback_hours
    return torch.cat([grid.filled, grid.seen.to(since.dtype), since.to(grid.value.dtype)], dim=-1)
