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
from hymate.data.pooling import pool_data
from hymate.data.store import TripletStore
from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.evaluate.figures import Report, binary_report, regression_report
from hymate.model.registry import MODELS
from hymate.train.alone import Progress, rounds_done, train_alone
from hymate.train.config import TrainConfig
from hymate.train.loop import LocalHook, labelled
from hymate.train.prediction import predicted_values, tabulate, write_tables
from hymate.train.report import cohort, training_report
from hymate.train.run import Journal, RunFolder, alone_in, begin, refuse_difference
from hymate.train.saved_model import (
    MODEL,
    PRETRAINED,
    SavedModel,
    Scale,
    load_pretrained,
    new_model,
    save_model,
)
from hymate.train.target import Regression, target_of


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
        pool_data(config.data, config.task, config.vocabulary), config.label_share, config.seed
    )
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
        target = target_of(store, config.task, labels)
        saved, pretrain = _untrained(config, vocabulary), config.pretrain
        if isinstance(target, Regression):
            saved = replace(saved, scale=Scale(target.mean, target.std))
        if config.pretrained is not None:
            load_pretrained(run.path, saved)
            pretrain = pretrain.model_copy(update={"rounds": 0})
        done = rounds_done(run.state)
        watcher.prepared(data, _steps(config, pretrain.rounds, store), done)
        journal = Journal(run, done)

        def on_progress(progress: Progress) -> None:
            journal.round(progress)
            if progress.phase == "pretrain" and progress.round == progress.rounds:
                save_model(run.path / PRETRAINED, saved)
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
                state=run.state,
                watch_forecasts=config.evaluation.forecasts,
                hook=watcher.hook,
            )
        finally:
            journal.close()
        save_model(run.path / MODEL, saved)
        began = time.perf_counter()
        evaluated: dict[str, dict[str, Report]] = {
            split: _evaluate(run.path, config, saved, store, labels, split)
            for split in config.evaluation.splits
        }
        report = training_report(config, data, saved, result, evaluated, time.perf_counter() - began)
        run.write_report(report)
        return report


def _untrained(config: TrainConfig, vocabulary: Vocabulary) -> SavedModel:
    model = new_model(config.model, config.task, vocabulary, config.seed)
    return SavedModel(config.name, model, config.model, config.task, vocabulary)


def _evaluate(
    folder: Path,
    config: TrainConfig,
    saved: SavedModel,
    store: TripletStore,
    labels: NDArray[np.float32],
    split: str,
) -> dict[str, Report]:
    """Write a split's predictions; its figures by label set."""
    rows = labelled(store, split)
    made = predicted_values(saved, store, rows)
    tables = tabulate(config.task, store, rows, made, labels[rows])
    if rows.size:
        several = len(tables) > 1
        write_tables(folder / "predictions" / (split if several else f"{split}.parquet"), tables)
    measure = regression_report if config.task.kind == "regression" else binary_report
    settings = BootstrapSettings(config.evaluation.bootstrap, config.evaluation.confidence, config.seed)
    reports = {}
    for column, name in enumerate(config.task.label_sets):
        known = ~np.isnan(labels[rows, column])
        # As the predictions are written: who measures the file finds the same figures.
        values = made[known, column].astype(np.float32).astype(np.float64)
        truth = labels[rows, column][known].astype(np.float64)
        order = np.lexsort((store.prediction_time[rows][known], store.subject_id[rows][known]))
        subjects = store.subject_id[rows][known][order]
        reports[name] = measure(truth[order], values[order], subjects, settings)
    return reports


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
    return {**before, "finetune": steps(len(labelled(store, "train")), config.finetune)}
