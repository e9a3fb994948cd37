"""What a training says of itself: `data.json` before it, `report.json` after it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from hymate.config import TaskConfig
from hymate.data.meds import SPLITS
from hymate.data.pooling import PooledData
from hymate.errors import InputFault
from hymate.evaluate.figures import Report
from hymate.evaluate.ranking import NAMES as RANKING
from hymate.train.alone import AloneResult
from hymate.train.config import TrainConfig
from hymate.train.saved_model import SavedModel


def training_report(
    config: TrainConfig,
    data: dict[str, Any],
    saved: SavedModel,
    results: Sequence[AloneResult],
    evaluated: dict[str, dict[str, Report]],
    evaluation_seconds: float,
    members: Sequence[dict[str, dict[str, Report]]] = (),
) -> dict[str, Any]:
    """`results` of all members. Of an ensemble, `evaluation` is of the mean, `pretraining` and `finetuning`
    of the first member; `ensemble` has those of each, with its own figures, `members`."""
    result = results[0]
    phases = {
        phase: sum(
            progress.seconds for each in results for progress in each.rounds if progress.phase == phase
        )
        for phase in ("pretrain", "warm", "finetune", "distil")
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
        **_trained(config, result),
        **({"ensemble": _ensemble(config, results, members)} if members else {}),
        "evaluation": {split: _figures(reports) for split, reports in evaluated.items()},
        "seconds": {
            **phases,
            "training": sum(each.seconds for each in results),
            "evaluation": evaluation_seconds,
        },
        "versions": _versions(),
    }


def _trained(config: TrainConfig, result: AloneResult) -> dict[str, Any]:
    """How one model was trained."""
    return {
        "pretraining": {
            "epochs": result.pretrain_epochs,
            "from": None if config.pretrained is None else str(config.pretrained),
        },
        "finetuning": {
            "warm_epochs": config.finetune.warm_epochs,
            "epochs": result.finetune_epochs,
            "best_epoch": result.best_epoch,
            "criterion": result.criterion,
            "positive_weight": result.positive_weight,
            "tuning": asdict(result.tuning),
        },
    }


def _ensemble(
    config: TrainConfig, results: Sequence[AloneResult], members: Sequence[dict[str, dict[str, Report]]]
) -> dict[str, Any]:
    return {
        "pretraining": config.ensemble_pretraining,
        "members": [
            {
                "seed": config.seed + number,
                **_trained(config, result),
                "evaluation": {split: _figures(reports) for split, reports in evaluated.items()},
            }
            for number, (result, evaluated) in enumerate(zip(results, members, strict=True))
        ],
    }


def cohort(config: TrainConfig, pooled: PooledData) -> dict[str, Any]:
    """What `data.json` says: where the stays come from, and how many there are of which kind."""
    stays = pooled.windows.stays
    splits = {}
    for split in SPLITS:
        chosen = (stays["split"] == split).to_numpy()
        splits[split] = {
            "stays": int(chosen.sum()),
            "subjects": stays["subject_id"].filter(pl.Series(chosen)).n_unique(),
            **_label_counts(config.task, pooled.labels[chosen]),
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


def _label_counts(task: TaskConfig, labels: NDArray[np.float32]) -> dict[str, Any]:
    """labels (n, K), NaN: not known."""
    if task.kind == "regression":
        return {"mean": float(labels.mean(dtype=np.float64)) if len(labels) else None}
    positives = (labels == 1).sum(axis=0)
    if task.kind == "binary":
        return {"positives": int(positives[0])}
    known = (~np.isnan(labels)).sum(axis=0)
    return {
        "labels": {
            name: {"stays": int(known[k]), "positives": int(positives[k])}
            for k, name in enumerate(task.label_sets)
        }
    }


def _figures(reports: dict[str, Report]) -> dict[str, Any]:
    """One label's figures as they are; of several, each and their mean over those that have the figure."""
    if len(reports) == 1:
        return next(iter(reports.values())).to_json()
    means: dict[str, float | None] = {}
    for name in RANKING:
        values = [report.figures[name].value for report in reports.values()]
        known = [value for value in values if value is not None]
        means[name] = sum(known) / len(known) if known else None
    return {"labels": {name: report.to_json() for name, report in reports.items()}, "mean": means}


def _versions() -> dict[str, str]:
    packages = ("hymate-federated", "torch", "numpy", "polars", "meds")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
