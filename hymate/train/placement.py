"""Where a model is and which mode it is in; what training borrows, it gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch
from torch import nn

from hymate.data.batching import TripletBatch
from hymate.data.forecasting import ForecastBatch


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Train or evaluate within; afterwards the model is in the mode it came in."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


@contextmanager
def own_randomness(model: nn.Module) -> Iterator[None]:
    """torch's generators may be seeded within; afterwards they are as they were."""
    device = device_of(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters: all are on one."""
    return next(model.parameters()).device


def on_device(batch: TripletBatch, device: torch.device) -> TripletBatch:
    """The batch there; the same object where it is there already."""
    if batch.mask.device == device:
        return batch
    return TripletBatch(**{field.name: getattr(batch, field.name).to(device) for field in fields(batch)})


def forecast_on_device(batch: ForecastBatch, device: torch.device) -> ForecastBatch:
    """As `on_device`, input and targets."""
    return ForecastBatch(
        on_device(batch.input, device), batch.target.to(device), batch.target_mask.to(device)
    )
