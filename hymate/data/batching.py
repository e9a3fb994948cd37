"""TripletBatch: what the model sees of some stays. (Contract; collation follows.)"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TripletBatch:
    """Observations of B stays, each sorted by time and right-padded to the longest, L.

    Padding never changes a result: a stay's output is the same alone or in any batch.

    | field    | shape  | dtype   | unit, meaning                                          | pad   |
    |----------|--------|---------|--------------------------------------------------------|-------|
    | time     | (B, L) | float32 | hours since the window's start, ascending              | 0.0   |
    | code     | (B, L) | int64   | vocabulary index, 1..V                                 | 0     |
    | value    | (B, L) | float32 | z-score of the measured value under the vocabulary     | 0.0   |
    | mask     | (B, L) | bool    | True where an observation is                           | False |
    | static   | (B, S) | float32 | demographics, `Vocabulary.static_names` gives the order| -     |
    | label    | (B,)   | float32 | 0.0 or 1.0; NaN where the stay has no label            | -     |
    | row      | (B,)   | int64   | row of the stay in its store                           | -     |
    """

    time: torch.Tensor
    code: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor
    static: torch.Tensor
    label: torch.Tensor
    row: torch.Tensor


@dataclass(frozen=True)
class ForecastBatch:
    """Masked forecasting: a `TripletBatch` cut at each stay's t1, and what was measured just after.

    | field        | shape      | dtype   | meaning                                                      |
    |--------------|------------|---------|--------------------------------------------------------------|
    | input        |            |         | observations with time <= t1, whole variables dropped        |
    | target       | (B, V + 1) | float32 | z-score of each code's first value in (t1, t1 + forecast]; 0 |
    | target_mask  | (B, V + 1) | bool    | True where `target` was measured; column 0 never             |
    """

    input: TripletBatch
    target: torch.Tensor
    target_mask: torch.Tensor
