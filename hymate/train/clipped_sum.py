"""From a piece of a batch to the sum of its stays' clipped gradients.

A step's sum must change by at most the clipping norm when one patient more takes part. So a gradient that is
not finite counts nothing, instead of making the whole sum tell that this patient was in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from hymate.data.batching import TripletBatch
from hymate.data.forecasting import ForecastBatch
from hymate.train.private_optimiser import PrivateOptimiser
from hymate.train.sample_gradients import Mode, SampleGradients, unusable

Batch = TypeVar("Batch", TripletBatch, ForecastBatch)


@dataclass
class Visits:
    """Sums over the stays visited."""

    loss: float = 0.0
    usable: int = 0
    unusable: int = 0

    def count(self, losses: Tensor, bad: Tensor) -> None:
        self.loss += float(losses.detach()[~bad].sum())
        self.unusable += int(bad.sum())
        self.usable += int((~bad).sum())


def add_clipped(
    private: PrivateOptimiser,
    samples: SampleGradients,
    batch: Batch,
    losses: Callable[[Batch], Tensor],
    visits: Visits,
) -> None:
    """Clip the gradients of one piece's stays, and add them to `private`'s sum; counted in `visits`.

    Within a `SampleGradients` of the model. losses: of the batch, (B,).
    """
    samples.clear()
    if private.in_two_passes:
        _add_in_two_passes(private, samples, batch, losses, visits)
        return
    made = losses(batch)  # (B,)
    made.sum().backward()  # type: ignore[no-untyped-call]
    bad = unusable(private.params)
    if bad.any():
        for parameter in private.params:
            parameter.grad_sample[bad] = 0.0  # type: ignore[attr-defined]
    visits.count(made, bad)
    private.add()


def _add_in_two_passes(
    private: PrivateOptimiser,
    samples: SampleGradients,
    batch: Batch,
    losses: Callable[[Batch], Tensor],
    visits: Visits,
) -> None:
    """First the norms, then the gradient of the losses weighed by what clipping leaves of each."""
    samples.mode = Mode.NORMS
    made = losses(batch)
    made.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    assert samples.squares is not None  # there are parameters
    bad = ~torch.isfinite(samples.squares)
    visits.count(made, bad)
    if bad.any():  # zero times what is not finite is no zero: such a stay may not be in the batch at all
        visits.usable -= int((~bad).sum())
        visits.loss -= float(made.detach()[~bad].sum())
        samples.clear()
        if not bad.all():
            _add_in_two_passes(private, samples, _only(batch, ~bad), losses, visits)
        return
    kept = (private.max_grad_norm / (samples.squares.sqrt() + 1e-6)).clamp(max=1.0)
    samples.mode = Mode.SUMS
    (kept * made).sum().backward()  # type: ignore[no-untyped-call]
    private.add()


def _only(batch: Batch, kept: Tensor) -> Batch:
    """The stays where `kept` (B,) is True."""
    parts: dict[str, Any] = {}
    for field in fields(batch):
        part = getattr(batch, field.name)
        parts[field.name] = _only(part, kept) if isinstance(part, TripletBatch) else part[kept.cpu()]
    return type(batch)(**parts)
