"""One site trains by itself: pretraining, then fine-tuning with early stopping."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hymate.config import FinetuneConfig, PretrainConfig
from hymate.data.store import TripletStore
from hymate.evaluate.metrics import auroc, average_precision, log_loss_sum
from hymate.model.hymate import HyMaTE
from hymate.train.early_stopping import EarlyStopping
from hymate.train.loop import finetune_epochs, labelled, make_optimiser, pretrain_epochs, score
from hymate.train.objectives import class_weight

Criterion = Literal["auroc + average precision", "log loss", "none"]


@dataclass(frozen=True)
class Tuning:
    """How the weights do on the tuning split. auroc, auprc: None where a class is missing."""

    stays: int
    auroc: float | None
    auprc: float | None
    log_loss: float | None
    """Mean over stays; None without stays."""


@dataclass(frozen=True)
class Progress:
    """One round of one phase is done. round: 1-based; tuning: fine-tuning only."""

    phase: Literal["pretrain", "finetune"]
    round: int
    rounds: int
    loss: float
    seconds: float
    tuning: Tuning | None = None


@dataclass(frozen=True)
class AloneResult:
    """What training did; the model passed in holds the best weights.

    criterion says what "best" was judged by: "log loss" where the tuning split has one class only,
    "none" where it is empty (then the last weights are kept).
    """

    pretrain_epochs: int
    finetune_epochs: int
    best_epoch: int
    """Fine-tuning epochs behind the weights kept; 0: those fine-tuning began with."""
    criterion: Criterion
    tuning: Tuning
    """Under the weights kept."""
    positive_weight: float
    seconds: float
    rounds: tuple[Progress, ...] = field(repr=False, default=())


def train_alone(
    store: TripletStore,
    model: HyMaTE,
    pretrain: PretrainConfig,
    finetune: FinetuneConfig,
    seed: int,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> AloneResult:
    """Train `model` in place on one store's training split.

    Fine-tuning stops after `finetune.patience` rounds without a better AUROC + average precision on
    the tuning split, and the best round's weights are restored. Raises `InputFault` where nothing
    can be trained on or the loss stops being finite.
    """
    began = time.perf_counter()
    history: list[Progress] = []

    def report(progress: Progress) -> None:
        history.append(progress)
        if on_progress is not None:
            on_progress(progress)

    pretrained = _pretrain(store, model, pretrain, seed, report)

    tuning_rows = labelled(store, "tuning")
    positive_weight = class_weight(store.label[labelled(store, "train")])
    optimiser = make_optimiser(model, finetune)
    best_tuning = evaluate_tuning(model, store, tuning_rows)
    best_weights, best_round, done = copy.deepcopy(model.state_dict()), 0, 0
    criterion = _criterion(best_tuning)
    stopping = EarlyStopping(finetune.patience)
    stopping.update(_merit(best_tuning, criterion))
    while done < finetune.rounds and not stopping.exhausted:
        result = finetune_epochs(
            model,
            store,
            finetune,
            optimiser,
            positive_weight=positive_weight,
            seed=seed,
            first_epoch=done * finetune.local_epochs,
            epochs=finetune.local_epochs,
        )
        done += 1
        tuning = evaluate_tuning(model, store, tuning_rows)
        report(Progress("finetune", done, finetune.rounds, result.loss, result.seconds, tuning))
        if stopping.update(_merit(tuning, criterion)):
            best_tuning, best_round = tuning, done
            best_weights = copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    return AloneResult(
        pretrain_epochs=pretrained,
        finetune_epochs=done * finetune.local_epochs,
        best_epoch=best_round * finetune.local_epochs,
        criterion=criterion,
        tuning=best_tuning,
        positive_weight=positive_weight,
        seconds=time.perf_counter() - began,
        rounds=tuple(history),
    )


def evaluate_tuning(model: HyMaTE, store: TripletStore, rows: NDArray[np.int64]) -> Tuning:
    """Figures of `rows`, all labelled, under the model's present weights."""
    if not len(rows):
        return Tuning(0, None, None, None)
    labels = store.label[rows].astype(np.float64)
    scores = score(model, store, rows)
    return Tuning(
        stays=len(rows),
        auroc=auroc(labels, scores),
        auprc=average_precision(labels, scores),
        log_loss=log_loss_sum(labels, scores) / len(rows),
    )


def _pretrain(
    store: TripletStore,
    model: HyMaTE,
    config: PretrainConfig,
    seed: int,
    report: Callable[[Progress], None],
) -> int:
    """All rounds of pretraining; returns the number of epochs."""
    if not config.rounds:
        return 0
    optimiser: torch.optim.Optimizer = make_optimiser(model, config)
    for number in range(1, config.rounds + 1):
        result = pretrain_epochs(
            model,
            store,
            config,
            optimiser,
            seed=seed,
            first_epoch=(number - 1) * config.local_epochs,
            epochs=config.local_epochs,
        )
        report(Progress("pretrain", number, config.rounds, result.loss, result.seconds))
    return config.rounds * config.local_epochs


def _criterion(tuning: Tuning) -> Criterion:
    if not tuning.stays:
        return "none"
    return "log loss" if tuning.auroc is None else "auroc + average precision"


def _merit(tuning: Tuning, criterion: Criterion) -> float | None:
    """The larger, the better; None where nobody can say."""
    if criterion == "none":
        return None
    if criterion == "log loss":
        assert tuning.log_loss is not None  # there are stays
        return -tuning.log_loss
    assert tuning.auroc is not None  # both classes are there
    assert tuning.auprc is not None
    return tuning.auroc + tuning.auprc
