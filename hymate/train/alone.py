"""One site trains by itself: pretraining, then fine-tuning with early stopping.

With a file for its state, training goes on where it was killed: the file is written in one step after
every round, and holds weights, optimiser, history and the best weights so far. What a round does
depends on these, the seed and the round's number alone (`hymate.train.loop`), so the weights at the end
are the same bits as without the kill.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hymate.config import FinetuneConfig, PretrainConfig
from hymate.data.store import TripletStore
from hymate.model.sequence_model import SequenceModel
from hymate.train.checkpoint import load_checkpoint, read_kept, read_state, save_checkpoint
from hymate.train.early_stopping import EarlyStopping
from hymate.train.loop import (
    LocalHook,
    finetune_epochs,
    forecast_error,
    labelled,
    make_optimiser,
    outputs,
    pretrain_epochs,
)
from hymate.train.objectives import class_weight
from hymate.train.target import Binary, Criterion, Target, Tuning, criterion_of, merit

__all__ = ["AloneResult", "Progress", "Tuning", "rounds_done", "train_alone"]

Phase = Literal["pretrain", "finetune"]

BEST = "best"


@dataclass(frozen=True)
class Progress:
    """One round of one phase is done. round: 1-based."""

    phase: Phase
    round: int
    rounds: int
    loss: float
    seconds: float
    """Training alone, without the figures below."""
    tuning: Tuning | None = None
    """Fine-tuning only."""
    forecast_error: float | None = None
    """Pretraining only, where it is watched: mean loss on the tuning split."""


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


@dataclass
class _Journey:
    """How far training has come: what the state file holds beside model and optimiser."""

    file: Path | None
    history: list[Progress] = field(default_factory=list)
    first: Tuning | None = None
    """On tuning before the first round of fine-tuning."""
    best_round: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds_before: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if self.file is None or not self.file.is_file():
            return
        state = read_state(self.file)
        self.history = [_progress(entry) for entry in state["history"]]
        self.first = None if state["first"] is None else Tuning(**state["first"])
        self.best_round = state["best_round"]
        self.seconds_before = state["seconds"]
        self.best = read_kept(self.file, BEST)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def done(self, phase: Phase) -> int:
        """Rounds of this phase behind us."""
        return sum(progress.phase == phase for progress in self.history)

    def restore(self, phase: Phase, model: SequenceModel, optimiser: torch.optim.Optimizer) -> None:
        """Put model and optimiser where the last round left them, if it was one of this phase."""
        if self.file is not None and self.done(phase) and self.history[-1].phase == phase:
            load_checkpoint(self.file, model, optimiser)

    def keep(self, model: SequenceModel, optimiser: torch.optim.Optimizer) -> None:
        """Write all of it, in one step."""
        if self.file is None:
            return
        state = {
            "history": [asdict(progress) for progress in self.history],
            "first": None if self.first is None else asdict(self.first),
            "best_round": self.best_round,
            "seconds": self.seconds,
        }
        save_checkpoint(self.file, model, optimiser, state, {BEST: self.best})


def rounds_done(file: Path) -> tuple[Progress, ...]:
    """The rounds a state file has behind it; empty where there is no such file yet."""
    return tuple(_Journey(file).history)


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
    the tuning split, and the best round's weights are restored.

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
    journey = _Journey(state)

    def report(progress: Progress) -> None:
        journey.history.append(progress)
        if on_progress is not None:
            on_progress(progress)

    _pretrain(store, model, pretrain, seed, journey, report, watch_forecasts, hook)

    tuning_rows = labelled(store, "tuning")
    target = target or Binary(store.label, class_weight(store.label[labelled(store, "train")]))
    optimiser = make_optimiser(model, finetune)
    journey.restore("finetune", model, optimiser)
    if journey.first is None:
        journey.first = evaluate_tuning(model, store, tuning_rows, target)
        journey.best = _copied(model.state_dict())
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
        )
        tuning = evaluate_tuning(model, store, tuning_rows, target)
        if stopping.update(merit(tuning, criterion)):
            journey.best_round, journey.best = done + 1, _copied(model.state_dict())
        report(Progress("finetune", done + 1, finetune.rounds, result.loss, result.seconds, tuning))
        journey.keep(model, optimiser)
    model.load_state_dict(journey.best)
    return AloneResult(
        pretrain_epochs=journey.done("pretrain") * pretrain.local_epochs,
        finetune_epochs=journey.done("finetune") * finetune.local_epochs,
        best_epoch=journey.best_round * finetune.local_epochs,
        criterion=criterion,
        tuning=_tunings(journey)[journey.best_round],
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
    journey: _Journey,
    report: Callable[[Progress], None],
    watch: bool,
    hook: LocalHook | None,
) -> None:
    """The rounds of pretraining that are still to be done."""
    if journey.done("finetune") or not config.rounds:
        return
    optimiser: torch.optim.Optimizer = make_optimiser(model, config)
    journey.restore("pretrain", model, optimiser)
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
        )
        progress = Progress("pretrain", done + 1, config.rounds, result.loss, result.seconds)
        if watch:
            progress = replace(progress, forecast_error=forecast_error(model, store, config, seed))
        report(progress)
        journey.keep(model, optimiser)


def _tunings(journey: _Journey) -> list[Tuning]:
    """Before fine-tuning, and after each of its rounds."""
    assert journey.first is not None  # fine-tuning has begun
    return [journey.first, *(progress.tuning for progress in journey.history if progress.tuning is not None)]


def _progress(entry: Mapping[str, Any]) -> Progress:
    tuning = entry["tuning"]
    return Progress(**{**entry, "tuning": None if tuning is None else Tuning(**tuning)})


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return copy.deepcopy(dict(weights))
