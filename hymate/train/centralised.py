"""One hospital, or pooled data, from MEDS to a report: vocabulary, pretraining, fine-tuning, evaluation."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hymate.config import FinetuneConfig, PretrainConfig
from hymate.data.label_share import hide_labels
from hymate.data.pooling import pool_data, tuning_joins_training
from hymate.data.store import TripletStore
from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault
from hymate.evaluate.figures import Report
from hymate.model.registry import MODELS
from hymate.train.alone import AloneResult, Progress, rounds_done, train_alone
from hymate.train.auxiliary import Auxiliary, auxiliary_target
from hymate.train.config import TrainConfig
from hymate.train.evaluation import evaluate
from hymate.train.loop import LocalHook
from hymate.train.report import cohort, training_report
from hymate.train.run import Journal, RunFolder, alone_in, begin, refuse_difference
from hymate.train.saved_model import (
    MODEL,
    PRETRAINED,
    SavedModel,
    Scale,
    as_ensemble,
    load_pretrained,
    new_model,
    save_model,
)
from hymate.train.scoring import labelled
from hymate.train.soft_labels import out_of_fold
from hymate.train.target import Regression, Target, target_of


class Watcher(Protocol):
    """Who is told how a training fares."""

    def prepared(self, data: dict[str, Any], steps: dict[str, int], done: tuple[Progress, ...]) -> None:
        """Data are read. steps: optimiser's steps in a round, about, of each phase there is; done: rounds
        behind us."""

    def round(self, progress: Progress) -> None:
        """One more round is done."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    @property
    def hook(self) -> LocalHook | None:
        """Called at every step."""


def start(out: Path, config: TrainConfig) -> RunFolder:
    """Read the data and make the run directory, or take up the one that is there.

    Raises:
        InputFault: the data cannot be trained on, or `out` holds something else or another training.
    """
    run = RunFolder(out)
    if run.started:
        refuse_difference(run, config)
        return run
    if config.pretrained is None and config.pretrain.rounds and not MODELS[config.model.name].can_forecast:
        what = f"model {config.model.name} learns from labels alone, and pretrain.rounds is not 0"
        raise InputFault("model", what, "set pretrain.rounds to 0")
    pooled = hide_labels(
        pool_data(config.data, config.task, config.vocabulary, _further(config)),
        config.label_share,
        config.seed,
    )
    if "tuning" in config.fit_on:
        pooled = tuning_joins_training(pooled)
    pretrained = None
    if config.pretrained is not None:
        pretrained = _untrained(config, pooled.vocabulary)
        load_pretrained(config.pretrained, pretrained)
    return begin(out, config, pooled, cohort(config, pooled), pretrained)


def train(run: RunFolder, watcher: Watcher) -> dict[str, Any]:
    """Train in `run` from where it stands to the report, which is returned.

    Killed at any point and called again, it ends with the same weights, bit for bit, given the same
    machine and number of threads.
    """
    config = run.config()
    with alone_in(run):
        if run.finished:
            return run.report()
        data = run.data()
        vocabulary, store = run.vocabulary(), run.open_store(config)
        _note_threads(data, watcher)
        labels = run.labels()
        target = _target(run, config, store, labels, watcher)
        members: list[tuple[SavedModel, AloneResult]] = []
        for number in range(config.ensemble):
            own = config.model_copy(update={"seed": config.seed + number})
            if config.ensemble > 1:
                watcher.note(f"member {number + 1} of {config.ensemble}, seed {own.seed}")
            members.append(_train_member(run, own, data, vocabulary, store, target, watcher))
        saved = members[0][0]
        if config.ensemble > 1:
            saved = as_ensemble([member for member, _ in members], config.name)
            save_model(run.path / MODEL, saved)
        began = time.perf_counter()
        evaluated: dict[str, dict[str, Report]] = {
            split: evaluate(run.path, config, saved, store, labels, split)
            for split in config.evaluation.splits
        }
        results = [result for _, result in members]
        each: list[dict[str, dict[str, Report]]] = [
            {
                split: evaluate(None, config, member, store, labels, split)
                for split in config.evaluation.splits
            }
            for member, _ in members
            if config.ensemble > 1
        ]
        report = training_report(config, data, saved, results, evaluated, time.perf_counter() - began, each)
        run.write_report(report)
        return report


def _target(
    run: RunFolder,
    config: TrainConfig,
    store: TripletStore,
    labels: NDArray[np.float32],
    watcher: Watcher,
) -> Target:
    """What all members learn."""
    soft, wanted = None, config.finetune.soft_labels
    if wanted is not None:
        watcher.note(f"soft labels: boosting on {wanted.folds} folds of the training stays")
        soft = run.soft_labels(lambda: out_of_fold(store, wanted.folds, config.seed))
    target = target_of(store, config.task, labels, config.finetune, soft)
    if config.finetune.auxiliary is not None:
        return auxiliary_target(target, store, run.auxiliary(), config.finetune.auxiliary.weight)
    return target


def _train_member(
    run: RunFolder,
    config: TrainConfig,
    data: dict[str, Any],
    vocabulary: Vocabulary,
    store: TripletStore,
    target: Target,
    watcher: Watcher,
) -> tuple[SavedModel, AloneResult]:
    """Train the model of `config.seed`, the only one or one of several, and write it to its folder."""
    folder = run if config.ensemble == 1 else run.member(config.seed)
    shared = config.ensemble == 1 or config.ensemble_pretraining == "shared"
    saved, pretrain = _untrained(config, vocabulary), config.pretrain
    task = target.task if isinstance(target, Auxiliary) else target
    if isinstance(task, Regression):
        saved = replace(saved, scale=Scale(task.mean, task.std))
    first = config.seed == run.config().seed
    if config.pretrained is not None or (shared and not first and pretrain.rounds):
        load_pretrained(run.path, saved)
        pretrain = pretrain.model_copy(update={"rounds": 0})
    done = rounds_done(folder.state)
    watcher.prepared(data, _steps(config, pretrain.rounds, store), done)
    journal = Journal(folder, done)

    def on_progress(progress: Progress) -> None:
        journal.round(progress)
        if progress.phase == "pretrain" and progress.round == progress.rounds:
            save_model((run if shared else folder).path / PRETRAINED, saved)
        watcher.round(progress)

    try:
        result = train_alone(
            store,
            saved.model,
            pretrain,
            config.finetune,
            config.seed,
            on_progress=on_progress,
            target=target,
            state=folder.state,
            watch_forecasts=config.evaluation.forecasts,
            hook=watcher.hook,
        )
    finally:
        journal.close()
    save_model(folder.path / MODEL, saved)
    return saved, result


def _further(config: TrainConfig) -> tuple[str, ...]:
    return () if config.finetune.auxiliary is None else config.finetune.auxiliary.tasks


def _untrained(config: TrainConfig, vocabulary: Vocabulary) -> SavedModel:
    model = new_model(config.model, config.task, vocabulary, config.seed)
    return SavedModel(config.name, model, config.model, config.task, vocabulary)


def _note_threads(data: dict[str, Any], watcher: Watcher) -> None:
    threads = torch.get_num_threads()
    if data["threads"] != threads:
        watcher.note(
            f"begun with {data['threads']} threads, now {threads}: sums are rounded otherwise, and the "
            "weights will differ in their last digits from a run without the break"
        )


def _steps(config: TrainConfig, pretraining: int, store: TripletStore) -> dict[str, int]:
    """Steps in a round of each phase there is; a little fewer where stays cannot be cut for a forecast."""

    def steps(stays: int, settings: PretrainConfig | FinetuneConfig) -> int:
        return -(-stays // settings.batch_size) * settings.local_epochs

    before = {"pretrain": steps(len(store.rows("train")), config.pretrain)} if pretraining else {}
    if config.finetune.warm_epochs:
        before["warm"] = 0  # no step of it is told
    after = {} if config.finetune.distillation is None else {"distil": 0}
    return {**before, "finetune": steps(len(labelled(store, "train")), config.finetune), **after}
