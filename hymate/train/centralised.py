"""One hospital, or pooled data, from MEDS to a report: vocabulary, pretraining, fine-tuning, evaluation."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch

from hymate.config import FinetuneConfig, PretrainConfig
from hymate.data.meds import SPLITS
from hymate.data.pooling import PooledData, pool_data
from hymate.data.store import TripletStore
from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.evaluate.figures import Report, binary_report
from hymate.evaluate.predictions import LABEL, PROBABILITY, write_predictions
from hymate.model.registry import MODELS
from hymate.train.alone import AloneResult, Progress, rounds_done, train_alone
from hymate.train.config import TrainConfig
from hymate.train.loop import LocalHook, labelled
from hymate.train.prediction import tabulate
from hymate.train.run import Journal, RunFolder, alone_in, begin, refuse_difference
from hymate.train.saved_model import MODEL, PRETRAINED, SavedModel, load_pretrained, new_model, save_model


class Watcher(Protocol):
    """Who is told how a training fares."""

    def prepared(self, data: dict[str, Any], steps: dict[str, int], done: tuple[Progress, ...]) -> None:
        """Data are read. steps: optimiser's steps in a round of each phase, about; done: rounds behind us."""

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
    pooled = pool_data(config.data, config.task, config.vocabulary)
    pretrained = None
    if config.pretrained is not None:
        pretrained = _untrained(config, pooled.vocabulary)
        load_pretrained(config.pretrained, pretrained)
    return begin(out, config, pooled, _cohort(config, pooled), pretrained)


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
        saved, pretrain = _untrained(config, vocabulary), config.pretrain
        if config.pretrained is not None:
            load_pretrained(run.path, saved)
            pretrain = pretrain.model_copy(update={"rounds": 0})
        done = rounds_done(run.state)
        watcher.prepared(data, _steps(config, store), done)
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
                state=run.state,
                watch_forecasts=config.evaluation.forecasts,
                hook=watcher.hook,
            )
        finally:
            journal.close()
        save_model(run.path / MODEL, saved)
        began = time.perf_counter()
        evaluated: dict[str, Report] = {
            split: _evaluate(run.path, config, saved, store, split) for split in config.evaluation.splits
        }
        report = _report(config, data, saved, result, evaluated, time.perf_counter() - began)
        run.write_report(report)
        return report


def _untrained(config: TrainConfig, vocabulary: Vocabulary) -> SavedModel:
    model = new_model(config.model, config.task, vocabulary, config.seed)
    return SavedModel(config.name, model, config.model, config.task, vocabulary)


def _evaluate(
    folder: Path, config: TrainConfig, saved: SavedModel, store: TripletStore, split: str
) -> Report:
    rows = labelled(store, split)
    table = tabulate(saved, store, rows)
    if rows.size:
        write_predictions(folder / "predictions" / f"{split}.parquet", table)
    return binary_report(
        table[LABEL].to_numpy().astype(np.float64),
        table[PROBABILITY].to_numpy().astype(np.float64),
        table["subject_id"].to_numpy(),
        BootstrapSettings(config.evaluation.bootstrap, config.evaluation.confidence, config.seed),
    )


def _report(
    config: TrainConfig,
    data: dict[str, Any],
    saved: SavedModel,
    result: AloneResult,
    evaluated: dict[str, Report],
    evaluation_seconds: float,
) -> dict[str, Any]:
    phases = {
        phase: sum(progress.seconds for progress in result.rounds if progress.phase == phase)
        for phase in ("pretrain", "finetune")
    }
    return {
        "format": 1,
        "kind": "training",
        "name": config.name,
        "seed": config.seed,
        "task": config.task.model_dump(mode="json"),
        "data": data,
        "vocabulary": {
            "codes": saved.vocabulary.size,
            "dropped": len(saved.vocabulary.dropped),
            "hash": saved.vocabulary.hash,
        },
        "model": {"parameters": saved.model.parameter_count, **config.model.model_dump(mode="json")},
        "pretraining": {
            "epochs": result.pretrain_epochs,
            "from": None if config.pretrained is None else str(config.pretrained),
        },
        "finetuning": {
            "epochs": result.finetune_epochs,
            "best_epoch": result.best_epoch,
            "criterion": result.criterion,
            "positive_weight": result.positive_weight,
            "tuning": asdict(result.tuning),
        },
        "evaluation": {split: report.to_json() for split, report in evaluated.items()},
        "seconds": {**phases, "training": result.seconds, "evaluation": evaluation_seconds},
        "versions": _versions(),
    }


def _cohort(config: TrainConfig, pooled: PooledData) -> dict[str, Any]:
    """What `data.json` says: where the stays come from, and how many there are of which kind."""
    stays = pooled.windows.stays
    splits = {}
    for split in SPLITS:
        part = stays.filter(pl.col("split") == split)
        splits[split] = {
            "stays": len(part),
            "subjects": part["subject_id"].n_unique(),
            "positives": int((part["label"] > 0.5).sum()),
        }
    if not splits["train"]["stays"]:
        raise InputFault(
            ", ".join(map(str, config.data)), "no stay is in split 'train'", "see subject_splits.parquet"
        )
    return {
        "sets": {
            name: {"path": str(path), "fingerprint": print_}
            for name, path, print_ in zip(pooled.names, config.data, pooled.fingerprints, strict=True)
        },
        "splits": splits,
        "observations": len(pooled.windows.triplets),
        "left_out": {reason: count for reason, count in pooled.windows.left_out.items() if count},
        "threads": torch.get_num_threads(),
        "release": version("hymate-federated"),
    }


def _note_threads(data: dict[str, Any], watcher: Watcher) -> None:
    threads = torch.get_num_threads()
    if data["threads"] != threads:
        watcher.note(
            f"begun with {data['threads']} threads, now {threads}: sums are rounded otherwise, and the "
            "weights will differ in their last digits from a run without the break"
        )


def _steps(config: TrainConfig, store: TripletStore) -> dict[str, int]:
    """Steps in a round of each phase; a little fewer where stays cannot be cut for a forecast."""

    def steps(stays: int, settings: PretrainConfig | FinetuneConfig) -> int:
        return -(-stays // settings.batch_size) * settings.local_epochs

    return {
        "pretrain": steps(len(store.rows("train")), config.pretrain),
        "finetune": steps(len(labelled(store, "train")), config.finetune),
    }


def _versions() -> dict[str, str]:
    packages = ("hymate-federated", "torch", "numpy", "polars", "meds")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
