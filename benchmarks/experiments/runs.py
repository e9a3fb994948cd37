"""One training of a table: what it is, where it lies, and how far it has come.

    OUT/trainings/ID/         the run directory of `hymate train`
    OUT/trainings/ID.yaml     its training file
    OUT/trainings/ID.json     row, seed, commits: `Run.note`
    OUT/trainings/ID.log      what it said

ID is a hash of data and configuration, so a training that stands in two tables is done once. What
pretraining depends on has a hash of its own: trainings that agree in it share the pretrained weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.experiments.files import FitOn, SummaryKind, TableConfig, row_config
from benchmarks.experiments.places import Place
from benchmarks.records import State, commits_in, digest
from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.train.config import TrainConfig, dump_train_config
from hymate.train.run import RunFolder, refuse_difference
from hymate.train.saved_model import PRETRAINED, SUMMARY

PRETRAINING = {"task", "vocabulary", "model", "pretrain", "seed"}
"""Keys of a training file that the pretrained weights depend on, beside the data."""


@dataclass(frozen=True)
class Run:
    """A row of a table under one seed, on one data set."""

    row: str
    place: Place
    config: TrainConfig
    out: Path
    summary: SummaryKind | None = None
    fit_on: FitOn = ("train",)

    @property
    def replicate(self) -> str:
        """What tells it from the row's other runs."""
        return ", ".join(filter(None, [self.place.label, f"seed {self.config.seed}"]))

    @property
    def id(self) -> str:
        other = {"summary": self.summary, "fit_on": list(self.fit_on)} if self.summary else {}
        content = _settings(self.config, set(TrainConfig.model_fields) - {"name", "data", "pretrained"})
        return digest({"data": self.place.key, "config": content, **other})

    @property
    def pretraining(self) -> str:
        """Names the pretrained weights; "" where there is no pretraining."""
        apart = self.config.ensemble > 1 and self.config.ensemble_pretraining == "own"
        if self.summary or apart or not self.config.pretrain.rounds:
            return ""
        content = _settings(self.config, PRETRAINING)
        model = {key: value for key, value in content["model"].items() if key not in SUMMARY}
        return digest({"data": self.place.key, **content, "model": model})

    @property
    def folder(self) -> Path:
        return self.out / "trainings" / self.id

    def beside(self, kind: str) -> Path:
        """One of the files beside the run directory."""
        return self.folder.with_name(f"{self.id}.{kind}")

    @property
    def has_pretrained(self) -> bool:
        return bool(self.pretraining) and (self.folder / PRETRAINED / "config.json").is_file()

    def state(self) -> State:
        """Raises `InputFault` where the folder holds another training, or one that is damaged."""
        found = RunFolder(self.folder)
        if self.folder.exists() and any(self.folder.iterdir()) and not (found.started or found.finished):
            raise InputFault(self.folder, "holds no training", "remove it, and run again")
        if found.started:
            before = found.config()
            same = {"name": before.name, "data": before.data, "pretrained": before.pretrained}
            refuse_difference(found, self.config.model_copy(update=same))
        if not found.finished:
            return "begun" if found.started else "new"
        self.figures()
        return "finished"

    def figures(self) -> dict[str, Any]:
        """What the finished training reports; `InputFault` where it is damaged."""
        path = self.folder / "report.json"
        report = RunFolder(self.folder).report()
        try:
            held_out = report["evaluation"]["held_out"]
            seconds = report["seconds"]
            return {
                "auroc": held_out["auroc"]["value"],
                "average_precision": held_out["average_precision"]["value"],
                "stays": held_out["stays"],
                "pretrained_for": self.config.pretrain.rounds * self.config.pretrain.local_epochs,
                "epochs": report["finetuning"]["epochs"] + report["finetuning"].get("warm_epochs", 0),
                "seconds": seconds["training"] + seconds["evaluation"],
                "shared": report["pretraining"]["from"] is not None,
            }
        except (KeyError, TypeError):
            raise InputFault(
                path, "is not the report of a training", "remove its folder, run again"
            ) from None

    def note(self, table: str, commit: str) -> None:
        """Write file and record; a training that goes on under another commit keeps both."""
        config = self.config.model_copy(update={"name": self.id, "data": (self.place.folder(self.out),)})
        write_text(self.beside("yaml"), dump_train_config(config))
        record = {
            "row": self.row,
            "table": table,
            "replicate": self.replicate,
            "data": self.place.key,
            "pretraining": self.pretraining,
            "commits": list(dict.fromkeys([*self.commits(), commit])),
        }
        write_text(self.beside("json"), json.dumps(record, indent=2) + "\n")

    def commits(self) -> list[str]:
        """Under which the training was run, in order."""
        return commits_in(self.beside("json"))

    def last_round(self) -> dict[str, Any]:
        """The last line of metrics.jsonl; empty before the first round."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            return dict(json.loads(lines[-1])) if lines else {}
        except (OSError, ValueError):
            return {}


def runs_of(
    table: TableConfig,
    found: Sequence[Place],
    seeds: Sequence[int],
    out: Path,
    *,
    reduced: bool,
    configs: Path,
) -> list[Run]:
    """All runs of a table: seed by seed, so that a stop leaves whole comparisons behind."""
    names = [name for name in table.rows if not reduced or name in (table.reduced.rows or table.rows)]
    rows = {name: row_config(table, name, reduced, configs) for name in names}
    return [
        Run(
            row=name,
            place=place,
            config=config.model_copy(update={"seed": seed, "name": "row", "data": ()}),
            out=out,
            summary=table.rows[name].summary,
            fit_on=table.rows[name].fit_on,
        )
        for seed in seeds
        for place in found
        for name, config in rows.items()
    ]


def _settings(config: TrainConfig, keys: set[str]) -> dict[str, Any]:
    """What differs from the defaults, and which model: a key added later makes no other training."""
    content = config.model_dump(mode="json", exclude_defaults=True, include=keys)
    # The name is every model's own default.
    return {**content, "model": {**content.get("model", {}), "name": config.model.name}}
