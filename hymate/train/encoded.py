"""What a frozen encoder says of stays, computed once: epochs that train head and summary branch alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hymate.data.batching import TripletBatch, evaluation_batches
from hymate.data.store import TripletStore
from hymate.model.hymate import HyMaTE
from hymate.train.placement import device_of, mode, on_device

ENCODED = 64  # stays that are encoded at once


@dataclass(frozen=True)
class Encoded:
    """What the encoder says of n stays: pooled (n, d), and the summary branch's figures, if any."""

    pooled: Tensor
    figures: Tensor | None


def encode_stays(model: HyMaTE, store: TripletStore, rows: NDArray[np.int64]) -> Encoded:
    """The stays in `rows`, which ascend, in their order; without dropout."""
    pooled, figures, seen = [], [], []
    with mode(model, training=False), torch.no_grad():
        for found in evaluation_batches(store, rows, ENCODED):
            batch = on_device(found, device_of(model))
            pooled.append(model.pool(batch).cpu())
            shown = model.figures(batch)
            if shown is not None:
                figures.append(shown.cpu())
            seen.append(found.row)
    order = torch.argsort(torch.cat(seen))
    return Encoded(torch.cat(pooled)[order], torch.cat(figures)[order] if figures else None)


def without_observations(store: TripletStore, rows: NDArray[np.int64]) -> TripletBatch:
    """What a batch says of its stays apart from their observations."""
    nothing = torch.zeros(len(rows), 0)
    return TripletBatch(
        time=nothing,
        code=nothing.long(),
        value=nothing,
        mask=nothing.bool(),
        static=torch.from_numpy(store.static[rows]),
        label=torch.from_numpy(store.label[rows]),
        row=torch.from_numpy(rows),
    )
