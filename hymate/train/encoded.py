"""What a frozen encoder says of stays, computed once: epochs that train head and summary branch alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hymate.config import FinetuneConfig
from hymate.data.batching import TripletBatch, evaluation_batches
from hymate.data.store import TripletStore
from hymate.model.hymate import HyMaTE
from hymate.train.averaging import Average
from hymate.train.loop import EpochResult, Phase, optimiser_step, streams
from hymate.train.placement import device_of, mode, on_device, own_randomness
from hymate.train.schedule import rate_factor, set_rate

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


Losses = Callable[[NDArray[np.int64]], Tensor]
"""Of the encoded stays at these places: (B,)."""


def frozen_epochs(
    model: HyMaTE,
    optimiser: torch.optim.Optimizer,
    config: FinetuneConfig,
    losses_of_epoch: Callable[[np.random.Generator], Losses],
    *,
    stays: int,
    epochs: int,
    batch_size: int,
    seed: int,
    phase: Phase,
    name: str,
    average: Average | None,
) -> EpochResult:
    """Train on encoded stays, all `stays` of them in each epoch, in batches of nearly the same size.

    `losses_of_epoch` is called with an epoch's random numbers before its batches are drawn. Schedule and
    `clip_norm` are those of `config`. Raises `InputFault` where the loss stops being finite.
    """
    began = time.perf_counter()
    each = -(-stays // batch_size)
    total, visits, steps = 0.0, 0, 0
    with mode(model, training=True), own_randomness(model):
        for number in range(epochs):
            rng, torch_seed = streams(seed, phase, number)
            torch.manual_seed(torch_seed)
            losses = losses_of_epoch(rng)
            for step, at in enumerate(np.array_split(rng.permutation(stays), each)):
                set_rate(optimiser, rate_factor(config, steps, epochs * each))
                made = optimiser_step(
                    model,
                    optimiser,
                    config.clip_norm,
                    partial(losses, at),
                    where=f"{name}, epoch {number}, step {step}",
                )
                if average is not None:
                    average.update(model)
                total, visits, steps = total + float(made.sum()), visits + made.numel(), steps + 1
    return EpochResult(total / visits, stays, steps, time.perf_counter() - began)
