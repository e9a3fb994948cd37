"""Epochs of the two phases.

What an epoch does depends on (seed, phase, number of the epoch), the weights and the optimiser's
state, and on nothing else: N epochs in one call equal N calls of one epoch, bitwise on CPU with as
many threads. A site that trains one epoch a round, each in a fresh process, therefore walks the same
path as one that trains without a break. torch's own generators are left as they were.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hymate.data.batching import TripletBatch, training_batches
from hymate.data.forecasting import ForecastBatch, forecast_batches, forecast_stays
from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE
from hymate.model.sequence_model import SequenceModel
from hymate.ops.allocator import release_memory
from hymate.train.averaging import Average
from hymate.train.objectives import classification_loss, event_loss, forecast_loss, smoothed
from hymate.train.optimiser import make_optimiser as make_optimiser  # noqa: PLC0414  (found here, too)
from hymate.train.placement import device_of, forecast_on_device, mode, on_device, own_randomness
from hymate.train.schedule import changes, rate_factor, set_rate
from hymate.train.scoring import labelled

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.config import FinetuneConfig, PretrainConfig
    from hymate.data.store import TripletStore

Objective = Callable[[Tensor, TripletBatch], Tensor]

Batch = TypeVar("Batch", TripletBatch, ForecastBatch)


class Phase(IntEnum):
    """Names a stream of random numbers; the numbers are part of what a seed means."""

    PRETRAIN = 1
    FINETUNE = 2
    WARM = 3
    DISTIL = 4


class LocalHook(Protocol):
    """What a federated algorithm may do inside local training.

    In every step, in this order: `before_step`, forward, backward, clipping of the gradient's norm,
    `on_gradient`, the optimiser's step, `after_step`. `on_gradient` comes after clipping, so a
    correction of the gradient (SCAFFOLD's) arrives whole.
    """

    def before_step(self, model: nn.Module) -> None:
        """Weights may be read or changed."""

    def on_gradient(self, model: nn.Module) -> None:
        """`p.grad` may be read or changed; it is None where the phase does not use p."""

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Weights may be changed once more; the rates of this step are those of `optimiser`'s groups."""

    def after_epoch(self, model: nn.Module) -> None:
        """All steps of an epoch are done."""


@dataclass(frozen=True)
class EpochResult:
    """What some epochs did.

    loss: mean over all stays visited, each at the moment of its visit; stays: those of one epoch;
    steps: the optimiser's, over all epochs; seconds: wall time.
    """

    loss: float
    stays: int
    steps: int
    seconds: float


def pretrain_epochs(
    model: SequenceModel,
    store: TripletStore,
    config: PretrainConfig,
    optimiser: torch.optim.Optimizer,
    *,
    seed: int,
    first_epoch: int,
    epochs: int,
    hook: LocalHook | None = None,
    average: Average | None = None,
) -> EpochResult:
    """Masked forecasting on the training stays, epochs `first_epoch` ... `first_epoch + epochs - 1`.

    The learning rate is that of these epochs among all `config.rounds * config.local_epochs`. `average`
    follows the weights.

    Raises `InputFault` where no training stay can be cut, or the loss stops being finite.
    """
    rows = store.rows("train")

    def batches(rng: np.random.Generator) -> Iterator[ForecastBatch]:
        return forecast_batches(store, rows, config, rng)

    def steps() -> int:
        return -(-forecast_stays(store, rows, config) * config.windows_per_stay // config.batch_size)

    result = _epochs(
        model,
        optimiser,
        config,
        batches,
        forecast_losses(model, config),
        phase=Phase.PRETRAIN,
        seed=seed,
        numbers=range(first_epoch, first_epoch + epochs),
        hook=hook,
        steps_per_epoch=steps,
        average=average,
    )
    return replace(result, stays=result.stays // config.windows_per_stay)


def finetune_epochs(
    model: SequenceModel,
    store: TripletStore,
    config: FinetuneConfig,
    optimiser: torch.optim.Optimizer,
    *,
    positive_weight: float,
    seed: int,
    first_epoch: int,
    epochs: int,
    hook: LocalHook | None = None,
    objective: Objective | None = None,
    average: Average | None = None,
) -> EpochResult:
    """Supervised training on the labelled training stays; numbering and faults as in `pretrain_epochs`.

    objective: losses (B,) of the model's output, where the task is another than one boolean label.
    """
    rows = labelled(store, "train")

    def batches(rng: np.random.Generator) -> Iterator[TripletBatch]:
        return training_batches(
            store, rows, config.batch_size, rng, config.variable_dropout, config.span_dropout_hours
        )

    return _epochs(
        model,
        optimiser,
        config,
        batches,
        label_losses(model, store, config, positive_weight, objective),
        phase=Phase.FINETUNE,
        seed=seed,
        numbers=range(first_epoch, first_epoch + epochs),
        hook=hook,
        steps_per_epoch=lambda: -(-len(rows) // config.batch_size),
        average=average,
    )


def forecast_losses(model: SequenceModel, config: PretrainConfig) -> Callable[[ForecastBatch], Tensor]:
    """What pretraining makes small: of a batch, (B,)."""
    device = device_of(model)

    def losses(found: ForecastBatch) -> Tensor:
        batch = forecast_on_device(found, device)
        if not config.event_rate:
            return forecast_loss(model.forecast(batch.input), batch, model.value_clip)
        assert isinstance(model, HyMaTE)  # `hymate.train.demands`: only its configuration has event_head
        values, events = model.forecast_with_events(batch.input)
        return forecast_loss(values, batch, model.value_clip) + config.event_rate * event_loss(events, batch)

    return losses


def label_losses(
    model: SequenceModel,
    store: TripletStore,
    config: FinetuneConfig,
    positive_weight: float,
    objective: Objective | None = None,
) -> Callable[[TripletBatch], Tensor]:
    """What fine-tuning makes small: of a batch of stays of `store`, (B,)."""
    device = device_of(model)
    train = labelled(store, "train")
    labels = torch.from_numpy(np.array(smoothed(store.label, train, config.label_smoothing))).to(device)

    def losses(found: TripletBatch) -> Tensor:
        batch = on_device(found, device)
        output = model.classify(batch)
        if objective is not None:
            return objective(output, batch)
        return classification_loss(output, labels[batch.row], positive_weight)

    return losses


def _epochs(
    model: SequenceModel,
    optimiser: torch.optim.Optimizer,
    config: PretrainConfig | FinetuneConfig,
    batches: Callable[[np.random.Generator], Iterable[Batch]],
    losses: Callable[[Batch], Tensor],
    *,
    phase: Phase,
    seed: int,
    numbers: range,
    hook: LocalHook | None,
    steps_per_epoch: Callable[[], int],
    average: Average | None,
) -> EpochResult:
    began = time.perf_counter()
    total, visits, steps = 0.0, 0, 0
    each = steps_per_epoch() if changes(config) else 0
    with mode(model, training=True), own_randomness(model):
        for number in numbers:
            rng, torch_seed = streams(seed, phase, number)
            torch.manual_seed(torch_seed)
            for step, batch in enumerate(batches(rng)):
                if each:
                    done, planned = number * each + step, config.rounds * config.local_epochs * each
                    set_rate(optimiser, rate_factor(config, done, planned))
                where = f"{phase.name.lower()}, epoch {number}, step {step}"
                made = optimiser_step(
                    model, optimiser, config.clip_norm, partial(losses, batch), hook=hook, where=where
                )
                if average is not None:
                    average.update(model)
                total += float(made.sum())
                visits += made.numel()
                steps += 1
            if hook is not None:
                hook.after_epoch(model)
            release_memory()  # batches of many lengths leave holes, and these grow from epoch to epoch
    if numbers and not steps:
        raise InputFault(
            phase.name.lower(),
            "no training stay can be used",
            "check the task's labels and window, and that subjects are in split 'train'",
        )
    return EpochResult(
        loss=total / visits if visits else math.nan,
        stays=visits // len(numbers) if numbers else 0,
        steps=steps,
        seconds=time.perf_counter() - began,
    )


def optimiser_step(
    model: SequenceModel,
    optimiser: torch.optim.Optimizer,
    clip_norm: float,
    losses: Callable[[], Tensor],
    *,
    where: str,
    hook: LocalHook | None = None,
) -> Tensor:
    """One update of the weights; returns the losses (B,) that it was made from."""
    if hook is not None:
        hook.before_step(model)
    optimiser.zero_grad()
    made = losses()  # (B,)
    loss = made.mean()
    _demand_finite(loss, "loss", where)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    _demand_finite(norm, "gradient's norm", where)
    if hook is not None:
        hook.on_gradient(model)
    optimiser.step()
    if hook is not None:
        hook.after_step(model, optimiser)
    return made.detach()


def _demand_finite(number: Tensor, name: str, where: str) -> None:
    if not torch.isfinite(number):
        raise InputFault(
            where,
            f"the {name} is {number.item()}",
            "lower the learning rate, or look for extreme values in the data",
        )


def streams(seed: int, phase: Phase, number: int) -> tuple[np.random.Generator, int]:
    """numpy's generator for batches and masks, and torch's seed for dropout."""
    for_batches, for_torch = np.random.SeedSequence([seed, int(phase), number]).spawn(2)
    return np.random.default_rng(for_batches), int(for_torch.generate_state(1, np.uint64)[0])
