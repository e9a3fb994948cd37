"""Where a study stands, on disk: one file after every complete phase and round, from which it can go on.

A file is whole or absent and holds all of it: global weights, the algorithm's own state, the best
weights so far, the sites' standing, what the phase found, and how long the journals were. Nothing
else is needed: every draw of a study follows from (seed, phase, round). A digest over the arrays tells a
file that was damaged later; the study then goes on from the one before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hymate.data.vocabulary import Vocabulary
from hymate.durable import write_bytes
from hymate.model.hymate import HyMaTE
from hymate.train.checkpoint import FORMAT
from hymate.train.saved_model import MODEL, SavedModel, save_model
from server.study import StudyConfig
from strategies.arrays import Weights
from strategies.prefixed import under

PHASES = (
    *("describe", "vocabulary", "pretrain", "finetune", "evaluate", "recalibrate"),
    *("alone", "shared", "pooled", "matrix", "left_out", "compare"),
)
"""In the order in which a study completes them."""
FOLDER = "checkpoints"
KEPT_ROUNDS = 2
GROUPS = {"weights": "weights/", "strategy": "kept/strategy/", "best": "kept/best/"}
"""Prefix of each group's arrays: as in `hymate.train.checkpoint`, which reads these files too."""


@dataclass(frozen=True)
class Checkpoint:
    """A study after one complete phase (`number` 0) or round."""

    phase: str
    number: int
    study: dict[str, Any]
    """What holds for the whole study: sites' standing, journal marks, seconds so far, run, vocabulary."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What this phase or round found."""
    weights: Weights = field(default_factory=dict)
    strategy: Weights = field(default_factory=dict)
    """`Algorithm.state`."""
    best: Weights = field(default_factory=dict)
    """The fine-tuned weights that did best on tuning so far."""

    @property
    def order(self) -> tuple[int, int]:
        return PHASES.index(self.phase), self.number

    @property
    def words(self) -> str:
        return f"{self.phase} round {self.number}" if self.number else self.phase


class Checkpoints:
    """`checkpoints/` of one run."""

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.notes: list[str] = []
        """What was found damaged, one line each."""
        self._read: dict[tuple[int, int], Checkpoint] = {}
        self._scan()

    @property
    def last(self) -> Checkpoint | None:
        """Where the study stands."""
        return self._read[max(self._read)] if self._read else None

    def latest(self, phase: str) -> Checkpoint | None:
        """The phase's last complete round, or the phase itself where it has none."""
        orders = [order for order in self._read if order[0] == PHASES.index(phase)]
        return self._read[max(orders)] if orders else None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it, then forget the phase's rounds before the last few."""
        groups = {name: getattr(checkpoint, name) for name in GROUPS}
        state = {
            "phase": checkpoint.phase,
            "round": checkpoint.number,
            "study": checkpoint.study,
            "facts": checkpoint.facts,
        }
        _write(self._path(checkpoint.phase, checkpoint.number), groups, state)
        self._read[checkpoint.order] = checkpoint
        phase = PHASES.index(checkpoint.phase)
        for order in sorted(order for order in self._read if order[0] == phase)[:-KEPT_ROUNDS]:
            self._path(checkpoint.phase, order[1]).unlink(missing_ok=True)
            del self._read[order]

    def save_best(self, server_round: int, weights: Weights) -> None:
        """`best.safetensors`, for people: resuming reads it from the round's own file."""
        _write(
            self.folder / "best.safetensors",
            {"weights": weights},
            {"phase": "finetune", "round": server_round},
        )

    def _path(self, phase: str, number: int) -> Path:
        return self.folder / f"{phase}-{number:05d}.safetensors"

    def _scan(self) -> None:
        """Read what is there; from the first damaged training state on, nothing counts."""
        for stray in self.folder.glob(".*"):  # of a write that was cut off
            stray.unlink()
        damaged = []
        for path in sorted(self.folder.glob("*-*.safetensors")):
            phase, _, number = path.stem.rpartition("-")
            if phase not in PHASES or not number.isdigit():
                continue
            try:
                checkpoint = _load(path, phase, int(number))
            except (SafetensorError, OSError, KeyError, ValueError):
                damaged.append((PHASES.index(phase), int(number)))
                path.replace(path.with_suffix(".damaged"))
                self.notes.append(f"{path.name} is damaged and was set aside")
                continue
            self._read[checkpoint.order] = checkpoint
        training = [order for order in damaged if order[0] >= PHASES.index("pretrain")]
        for order in [order for order in self._read if training and order > min(training)]:
            self._path(PHASES[order[0]], order[1]).unlink()
            del self._read[order]
        if self.notes and self.last:
            self.notes[-1] += f"; the study goes on after {self.last.words}"


def save_study_model(
    run: Path, study: StudyConfig, vocabulary: Vocabulary, model: HyMaTE, weights: Weights
) -> None:
    """`model/`: weights, config and vocabulary, enough to predict with unless layers stay at the sites."""
    elsewhere = study.strategy.local_layers
    saved = SavedModel(
        study.name, _filled(model, weights), study.model, study.task, vocabulary, elsewhere=elsewhere
    )
    save_model(run / MODEL, saved)


def _filled(model: HyMaTE, weights: Weights) -> HyMaTE:
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return model


def _write(path: Path, groups: Mapping[str, Weights], state: dict[str, Any]) -> None:
    arrays = {
        GROUPS[group] + name: np.asarray(array, order="C")  # a single number keeps its shape
        for group, weights in groups.items()
        for name, array in weights.items()
    }
    state = {**state, "digest": _digest(arrays)}
    # One key: safetensors writes several in no fixed order, and equal states are to be equal files.
    header = json.dumps({"format": FORMAT, "state": state})
    write_bytes(path, save(arrays, metadata={"header": header}))


def _load(path: Path, phase: str, number: int) -> Checkpoint:
    """Raises `ValueError` and what reading raises where the file is not as it was written."""
    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        header = json.loads((file.metadata() or {})["header"])
    state = header["state"]
    if (state["phase"], state["round"], state["digest"]) != (phase, number, _digest(arrays)):
        raise ValueError(f"{path} is not what was written")
    groups = {group: under(prefix, arrays) for group, prefix in GROUPS.items()}
    return Checkpoint(phase, number, state["study"], state["facts"], **groups)


def _digest(arrays: Weights) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}:{array.dtype}:{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
