"""Attributions of many stays, added up by feature and interval of time: what global importance is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hymate.data.batching import evaluation_batches
from hymate.data.store import TripletStore
from hymate.evaluate.explanation.attribution import integrated_gradients
from hymate.evaluate.explanation.pathway import Pathway
from hymate.train.placement import device_of, mode, on_device
from hymate.train.saved_model import SavedModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BATCH = 32
FIRST_STEPS = 16
TOLERANCE = 0.02


@dataclass(frozen=True)
class Amounts:
    """Of n stays, F codes (vocabulary index less 1), T intervals, S columns of demographics.

    | field   | shape     | meaning                                                                    |
    |---------|-----------|----------------------------------------------------------------------------|
    | by_time | (n, F, T) | sum over the code's observations in the interval                            |
    | seen    | (n, F, T) | whether there were any                                                      |
    | static  | (n, S)    | demographics                                                                |
    | gap     | (n,)      | what quadrature left                                                        |
    """

    by_time: Floats
    seen: Bools
    static: Floats
    gap: Floats

    @property
    def by_feature(self) -> Floats:
        """(n, F)."""
        total: Floats = self.by_time.sum(axis=2)
        return total


def attributed(
    saved: SavedModel, store: TripletStore, rows: NDArray[np.int64], target: int | None, intervals: int
) -> Amounts:
    """Attributions of the stays in `rows`, in their order, in the unit of the answer.

    Args:
        target: which of the model's answers; None where there is one.
        intervals: T, equal parts of the look-back; the window's very end belongs to the last.
    """
    codes, hours = saved.vocabulary.size, saved.task.lookback_hours
    scale = 1.0 if saved.scale is None else saved.scale.std
    count, width = len(rows), saved.vocabulary.static_width
    by_time = np.zeros((count, codes + 1, intervals))
    seen = np.zeros((count, codes + 1, intervals), np.bool_)
    static, gap = np.zeros((count, width)), np.zeros(count)
    place = np.zeros(len(store), np.int64)
    place[rows] = np.arange(count)
    pathway, device = Pathway(saved.model, saved.vocabulary.size), device_of(saved.model)
    with mode(saved.model, training=False), torch.enable_grad():
        for batch in evaluation_batches(store, rows, BATCH):
            made = integrated_gradients(
                pathway,
                on_device(batch, device),
                target=target,
                tolerance=TOLERANCE,
                first_steps=FIRST_STEPS,
            )
            here = place[batch.row.numpy()]
            real = batch.mask.numpy()
            stay = np.broadcast_to(here[:, None], real.shape)[real]
            part = np.clip(batch.time.numpy() / hours * intervals, 0, intervals - 1).astype(np.int64)
            cell = (stay, batch.code.numpy()[real], part[real])
            np.add.at(by_time, cell, (made.measured + made.found)[real] * scale)
            seen[cell] = True
            static[here] = made.static * scale
            gap[here] = made.gap * scale
    return Amounts(by_time[:, 1:], seen[:, 1:], static, gap)
