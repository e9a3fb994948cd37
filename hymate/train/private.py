"""Epochs of both phases under DP-SGD (Abadi et al. 2016, arXiv 1607.00133): each step is noised.

A step: Poisson sampling by patient (`hymate.train.poisson`), one stay of each patient drawn, each stay's own
gradient (`hymate.train.sample_gradients`), clipping, sum, noise, division by the *expected* batch size
(`hymate.train.private_optimiser`), then AdamW and the federated algorithm's hook, which see the noised
gradient and no other. `OptimiserConfig.clip_norm` is not used: it would only make noise shorter.

As in `hymate.train.loop`, what an epoch does depends on (key, phase, number of the epoch), the weights, the
optimiser's state and, where clipping is adaptive, the norm it has reached, and on nothing else.

`EpochResult.loss`, `visits` and `unusable` are functions of the records themselves: they stay at the site.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hymate.config import FinetuneConfig, PretrainConfig
from hymate.data.batching import TripletBatch, training_batches
from hymate.data.forecasting import ForecastBatch, forecast_batches, forecast_rows
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE
from hymate.model.sequence_model import SequenceModel
from hymate.ops.allocator import release_memory
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend
from hymate.train.averaging import Average
from hymate.train.clipped_sum import Visits, add_clipped
from hymate.train.loop import EpochResult, LocalHook, Objective, Phase, forecast_losses, label_losses
from hymate.train.noise import SecretNoise, derived_key
from hymate.train.per_sample import unknown_layers
from hymate.train.placement import device_of, mode, on_device, own_randomness
from hymate.train.poisson import Ints, Sampling, Subjects
from hymate.train.private_optimiser import KINDS, Mechanism
from hymate.train.sample_gradients import SampleGradients, used_parameters
from hymate.train.schedule import changes, rate_factor, set_rate
from hymate.train.scoring import labelled

Batch = TypeVar("Batch", TripletBatch, ForecastBatch)

PIECE_TOKENS, PIECE_STAYS = 8192, 32
"""A step's stays go through the model in pieces of similar length: gradients by stay do not know the
difference, but padding and memory do."""


@dataclass(frozen=True)
class PrivateResult:
    """What some private epochs did, and what they cost.

    epochs: as `hymate.train.loop` has it, but `stays` is the number of patients, the expected number of an
    epoch's visits; max_grad_norm: the norm to go on from where clipping is adaptive; visits: stays that took
    part, over all steps; unusable: those of them whose gradient was not finite and counted nothing.
    """

    epochs: EpochResult
    spend: Spend
    max_grad_norm: float
    visits: int
    unusable: int


def pretraining_sampling(store: TripletStore, config: PretrainConfig) -> Sampling:
    """How often a private epoch of pretraining draws whom."""
    return Sampling.of(
        len(_forecast_subjects(store, config)), config.batch_size, visits=config.windows_per_stay
    )


def finetuning_sampling(store: TripletStore, config: FinetuneConfig) -> Sampling:
    """How often a private epoch of fine-tuning draws whom."""
    return Sampling.of(len(Subjects.of(store, labelled(store, "train"))), config.batch_size)


def private_pretrain_epochs(
    model: SequenceModel,
    store: TripletStore,
    config: PretrainConfig,
    optimiser: torch.optim.Optimizer,
    mechanism: Mechanism,
    *,
    key: bytes,
    first_epoch: int,
    epochs: int,
    hook: LocalHook | None = None,
    average: Average | None = None,
) -> PrivateResult:
    """`pretrain_epochs` under DP-SGD; key: 32 secret bytes, another for other weights received.

    Raises `InputFault` where no training stay can be cut, the weights stop being finite, or the model has
    layers without gradients by stay.
    """

    def pieces(rows: Ints, rng: np.random.Generator) -> Iterator[ForecastBatch]:
        update = {"batch_size": _piece(store, rows), "windows_per_stay": 1}
        return forecast_batches(store, rows, config.model_copy(update=update), rng)

    def output(batch: TripletBatch) -> Tensor:
        if not config.event_rate:
            return model.forecast(batch)
        assert isinstance(model, HyMaTE)  # as in `hymate.train.loop`
        return torch.cat(model.forecast_with_events(batch), dim=1)

    return _private_epochs(
        model,
        optimiser,
        config,
        mechanism,
        _forecast_subjects(store, config),
        pretraining_sampling(store, config),
        pieces,
        forecast_losses(model, config),
        output,
        store=store,
        phase=Phase.PRETRAIN,
        key=key,
        numbers=range(first_epoch, first_epoch + epochs),
        hook=hook,
        average=average,
    )


def private_finetune_epochs(
    model: SequenceModel,
    store: TripletStore,
    config: FinetuneConfig,
    optimiser: torch.optim.Optimizer,
    mechanism: Mechanism,
    *,
    positive_weight: float,
    key: bytes,
    first_epoch: int,
    epochs: int,
    hook: LocalHook | None = None,
    objective: Objective | None = None,
    average: Average | None = None,
) -> PrivateResult:
    """`finetune_epochs` under DP-SGD; key and faults as in `private_pretrain_epochs`.

    `positive_weight` and what `objective` knows must not depend on single patients of this site.
    `config.label_smoothing` does, and is refused (ValueError; `PrivacyConfig.demand_soundness` says it to
    people).
    """
    if config.label_smoothing:
        raise ValueError("label_smoothing moves labels towards a mean over patients")

    def pieces(rows: Ints, rng: np.random.Generator) -> Iterator[TripletBatch]:
        return training_batches(
            store, rows, _piece(store, rows), rng, config.variable_dropout, config.span_dropout_hours
        )

    return _private_epochs(
        model,
        optimiser,
        config,
        mechanism,
        Subjects.of(store, labelled(store, "train")),
        finetuning_sampling(store, config),
        pieces,
        label_losses(model, store, config, positive_weight, objective),
        model.classify,
        store=store,
        phase=Phase.FINETUNE,
        key=key,
        numbers=range(first_epoch, first_epoch + epochs),
        hook=hook,
        average=average,
    )


def _private_epochs(
    model: SequenceModel,
    optimiser: torch.optim.Optimizer,
    config: PretrainConfig | FinetuneConfig,
    mechanism: Mechanism,
    subjects: Subjects,
    sampling: Sampling,
    pieces: Callable[[Ints, np.random.Generator], Iterable[Batch]],
    losses: Callable[[Batch], Tensor],
    output: Callable[[TripletBatch], Tensor],
    *,
    store: TripletStore,
    phase: Phase,
    key: bytes,
    numbers: range,
    hook: LocalHook | None,
    average: Average | None,
) -> PrivateResult:
    began = time.perf_counter()
    if unknown := unknown_layers(model):
        what = f"no gradient by patient is known for {len(unknown)} layers, {unknown[0]} among them"
        raise InputFault("privacy", what, "take model hymate, strats, mamba or transformer")
    if not len(subjects):
        what = "no training stay can be used"
        raise InputFault(
            phase.name.lower(), what, "check the task's labels and window, and that subjects are in 'train'"
        )
    visits = Visits()
    planned = config.rounds * config.local_epochs * sampling.steps
    with mode(model, training=True), own_randomness(model):
        invented = on_device(_invented(store), device_of(model))
        parameters = used_parameters(model, lambda: output(invented))
        private = KINDS[mechanism.clipping](optimiser, parameters, mechanism, config.batch_size)
        optimiser.zero_grad()  # gradients of whatever came before are raw
        try:
            for number in numbers:
                rng = np.random.default_rng(int.from_bytes(derived_key(key, "draws", phase, number)))
                torch.manual_seed(int.from_bytes(derived_key(key, "dropout", phase, number)[:8]))
                private.noise = SecretNoise(derived_key(key, "noise", phase, number))
                for step in range(sampling.steps):
                    if changes(config):
                        done = number * sampling.steps + step
                        set_rate(optimiser, rate_factor(config, done, planned))
                    if hook is not None:
                        hook.before_step(model)
                    private.zero_grad(set_to_none=True)
                    rows = subjects.draw(sampling.rate, rng)
                    with SampleGradients(model) as samples:
                        for piece in pieces(rows, rng) if len(rows) else ():
                            add_clipped(private, samples, piece, losses, visits)
                    private.finish()
                    if hook is not None:
                        hook.on_gradient(model)
                    optimiser.step()
                    if hook is not None:
                        hook.after_step(model, optimiser)
                    if average is not None:
                        average.update(model)
                _demand_finite(model, f"{phase.name.lower()}, epoch {number}")
                if hook is not None:
                    hook.after_epoch(model)
                release_memory()
        finally:
            private.leave()
    steps = len(numbers) * sampling.steps
    return PrivateResult(
        EpochResult(
            loss=visits.loss / visits.usable if visits.usable else math.nan,
            stays=sampling.subjects,
            steps=steps,
            seconds=time.perf_counter() - began,
        ),
        Spend(SAMPLED_GAUSSIAN, sampling.rate, mechanism.noise_multiplier, steps),
        float(private.max_grad_norm),
        visits.usable + visits.unusable,
        visits.unusable,
    )


def _forecast_subjects(store: TripletStore, config: PretrainConfig) -> Subjects:
    return Subjects.of(store, forecast_rows(store, store.rows("train"), config))


def _piece(store: TripletStore, rows: Ints) -> int:
    """Stays that go through the model at once."""
    return max(1, min(PIECE_STAYS, PIECE_TOKENS // max(1, int(store.lengths[rows].max()))))


def _invented(store: TripletStore) -> TripletBatch:
    """A stay of one observation that is nobody's: which parameters a phase uses must not be asked of data."""
    one = torch.ones(1, 1)
    return TripletBatch(
        time=one,
        code=one.long(),
        value=one,
        mask=one.bool(),
        static=torch.zeros(1, store.static.shape[1]),
        label=torch.zeros(1),
        row=torch.zeros(1, dtype=torch.int64),
    )


def _demand_finite(model: nn.Module, where: str) -> None:
    """The weights are noised, so whether they are finite may be told."""
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        what = "the weights are no longer finite"
        raise InputFault(where, what, "lower the learning rate or the noise")
