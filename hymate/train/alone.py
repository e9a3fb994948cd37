"""One site trains by itself: pretraining, then fine-tuning with early stopping.

With a file for its state, training goes on where it was killed: the file is written in one step after
every round, and holds weights, optimiser, history and the best weights so far. What a round does
depends on these, the seed and the round's number alone (`hymate.train.loop`), so the weights at the end
are the same bits as without the kill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hymate.config import FinetuneConfig, PretrainConfig
from hymate.data.store import TripletStore
from hymate.model.sequence_model import SequenceModel
from hymate.train.auxiliary import Auxiliary, narrow, widen
from hymate.train.averaging import Average, averaged
from hymate.train.distillation import distil
from hymate.train.early_stopping import EarlyStopping
from hymate.train.journey import Journey, Phase, Progress, copied
from hymate.train.loop import LocalHook, finetune_epochs, make_optimiser, pretrain_epochs
from hymate.train.scoring import forecast_error, labelled, outputs
from hymate.train.target import Criterion, Target, Tuning, criterion_of, merit, target_of
from hymate.train.warm_up import warm_up

__all__ = ["AloneResult", "Phase", "Progress", "Tuning", "rounds_done", "train_alone"]


@dataclass(frozen=True)
class AloneResult:
    """What training did; the model passed in holds the best weights.

    criterion says what "best" was judged by: "log loss" where the tuning split has one class only,
    "none" where it is empty (then the last weights are kept), an error for a number.
    """

    pretrain_epochs: int
    finetune_epochs: int
    best_epoch: int
    """Fine-tuning epochs behind the weights kept; 0: those fine-tuning began with."""
    criterion: Criterion
    tuning: Tuning
    """Under the weights kept."""
    positive_weight: float | tuple[float, ...] | None
    """Of each label; None for a number."""
    seconds: float
    """Over all runs of it, where it was killed and went on."""
    rounds: tuple[Progress, ...] = field(repr=False, default=())


def rounds_done(file: Path) -> tuple[Progress, ...]:
    """The rounds a state file has behind it; empty where there is no such file yet."""
    return tuple(Journey(file).history)


def train_alone(
    store: TripletStore,
    model: SequenceModel,
    pretrain: PretrainConfig,
    finetune: FinetuneConfig,
    seed: int,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    target: Target | None = None,
    state: Path | None = None,
    watch_forecasts: bool = False,
    hook: LocalHook | None = None,
) -> AloneResult:
    """Train `model` in place on one store's training split.

    Fine-tuning stops after `finetune.patience` rounds without a better AUROC + average precision on
    the tuning split, and the best round's weights are restored; these are a teacher of distillation, which
    follows where it is wanted.

    Args:
        on_progress: called after every round, before its state is kept: a round whose call did not
            come back is trained again.
        target: what is learned; default: the boolean `store.label`.
        state: file to go on from where it is there, and to keep the state in.
        watch_forecasts: after every round of pretraining, also measure the forecasts on tuning stays.

    Raises:
        InputFault: nothing can be trained on, the loss stops being finite, or `state` is damaged or
            belongs to another model.
    """
    journey = Journey(state)

    def report(progress: Progress) -> None:
        journey.history.append(progress)
        if on_progress is not None:
            on_progress(progress)

    _pretrain(store, model, pretrain, seed, journey, report, watch_forecasts, hook)

    target = target or target_of(store, store.task, finetune=finetune)
    further = target.labels.shape[1] if isinstance(target, Auxiliary) else 0
    if further:
        widen(model, further, seed)
    _warm(store, model, finetune, seed, journey, report, target)
    tuning_rows = labelled(store, "tuning")
    optimiser = make_optimiser(model, finetune)
    average = Average(model, finetune.ema) if finetune.ema else None
    journey.restore("finetune", model, optimiser, average)
    if journey.first is None:
        journey.first = evaluate_tuning(model, store, tuning_rows, target)
        journey.best = copied(model.state_dict())
    criterion = criterion_of(journey.first)
    stopping = EarlyStopping(finetune.patience)
    for tuning in _tunings(journey):
        stopping.update(merit(tuning, criterion))
    while (done := journey.done("finetune")) < finetune.rounds and not stopping.exhausted:
        result = finetune_epochs(
            model,
            store,
            finetune,
            optimiser,
            positive_weight=1.0,  # the target has it
            seed=seed,
            first_epoch=done * finetune.local_epochs,
            epochs=finetune.local_epochs,
            hook=hook,
            objective=target.losses,
            average=average,
        )
        with averaged(model, average):
            tuning = evaluate_tuning(model, store, tuning_rows, target)
            if stopping.update(merit(tuning, criterion)):
                journey.best_round, journey.best = done + 1, copied(model.state_dict())
            report(Progress("finetune", done + 1, finetune.rounds, result.loss, result.seconds, tuning))
        journey.keep(model, optimiser, average)
    model.load_state_dict(journey.best)
    tuning = _tunings(journey)[journey.best_round]
    if finetune.distillation is not None:
        tuning = _distil(store, model, finetune, seed, journey, report, target, tuning_rows)
    if further:
        narrow(model, further)
    return AloneResult(
        pretrain_epochs=journey.done("pretrain") * pretrain.local_epochs,
        finetune_epochs=journey.done("finetune") * finetune.local_epochs,
        best_epoch=journey.best_round * finetune.local_epochs,
        criterion=criterion,
        tuning=tuning,
        positive_weight=target.positive_weight,
        seconds=journey.seconds,
        rounds=tuple(journey.history),
    )


def evaluate_tuning(
    model: SequenceModel, store: TripletStore, rows: NDArray[np.int64], target: Target
) -> Tuning:
    """Figures of `rows`, all labelled, under the model's present weights."""
    if not len(rows):
        return Tuning(0, None, None, None)
    return target.tuning(outputs(model, store, rows), rows)


def _pretrain(
    store: TripletStore,
    model: SequenceModel,
    config: PretrainConfig,
    seed: int,
    journey: Journey,
    report: Callable[[Progress], None],
    watch: bool,
    hook: LocalHook | None,
) -> None:
    """The rounds of pretraining that are still to be done."""
    if journey.done("warm") or journey.done("finetune") or not config.rounds:
        return
    optimiser: torch.optim.Optimizer = make_optimiser(model, config)
    average = Average(model, config.ema) if config.ema else None
    journey.restore("pretrain", model, optimiser, average)
    while (done := journey.done("pretrain")) < config.rounds:
        result = pretrain_epochs(
            model,
            store,
            config,
            optimiser,
            seed=seed,
            first_epoch=done * config.local_epochs,
            epochs=config.local_epochs,
            hook=hook,
            average=average,
        )
        progress = Progress("pretrain", done + 1, config.rounds, result.loss, result.seconds)
        with averaged(model, average):
            if watch:
                progress = replace(progress, forecast_error=forecast_error(model, store, config, seed))
            report(progress)
        journey.keep(model, optimiser, average)
    if average is not None:
        model.load_state_dict(average.weights)


def _warm(
    store: TripletStore,
    model: SequenceModel,
    config: FinetuneConfig,
    seed: int,
    journey: Journey,
    report: Callable[[Progress], None],
    target: Target,
) -> None:
    """The epochs with a frozen encoder, if there are any and they are still to be done."""
    if not config.warm_epochs or journey.done("finetune"):
        return
    rate = config.model_copy(update={"learning_rate": config.warm_learning_rate})
    optimiser: torch.optim.Optimizer = make_optimiser(model, rate)
    journey.restore("warm", model, optimiser)
    if journey.done("warm"):
        return
    average = Average(model, config.ema) if config.ema else None
    result = warm_up(model, store, config, optimiser, objective=target.losses, seed=seed, average=average)
    if average is not None:
        model.load_state_dict(average.weights)
    report(Progress("warm", 1, 1, result.loss, result.seconds))
    journey.keep(model, optimiser)


def _distil(
    store: TripletStore,
    model: SequenceModel,
    config: FinetuneConfig,
    seed: int,
    journey: Journey,
    report: Callable[[Progress], None],
    target: Target,
    tuning_rows: NDArray[np.int64],
) -> Tuning:
    """Learn what teachers say, if that is still to be done; figures under the weights it ends with."""
    optimiser: torch.optim.Optimizer = make_optimiser(model, config)
    journey.restore("distil", model, optimiser)
    if not journey.done("distil"):
        result = distil(model, store, config, seed=seed)
        tuning = evaluate_tuning(model, store, tuning_rows, target)
        report(Progress("distil", 1, 1, result.loss, result.seconds, tuning))
        journey.keep(model, optimiser)
    (done,) = (progress for progress in journey.history if progress.phase == "distil")
    assert done.tuning is not None  # just above
    return done.tuning


def _tunings(journey: Journey) -> list[Tuning]:
    """Before fine-tuning, and after each of its rounds."""
    assert journey.first is not None  # fine-tuning has begun
    rounds = (progress for progress in journey.history if progress.phase == "finetune")
    return [journey.first, *(progress.tuning for progress in rounds if progress.tuning is not None)]
