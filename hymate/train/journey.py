"""How far a training has come, and the file that it goes on from after a kill."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hymate.model.sequence_model import SequenceModel
from hymate.train.averaging import Average
from hymate.train.checkpoint import load_checkpoint, read_kept, read_state, save_checkpoint
from hymate.train.target import Tuning

Phase = Literal["pretrain", "warm", "finetune", "distil"]
"""warm, distil: head and summary branch before the rounds of fine-tuning, from labels
(`hymate.train.warm_up`), and after them, from teachers (`hymate.train.distillation`); one round each."""

BEST = "best"
AVERAGE = "average"


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
    """Fine-tuning and distillation."""
    forecast_error: float | None = None
    """Pretraining only, where it is watched: mean loss on the tuning split."""


@dataclass
class Journey:
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

    def restore(
        self,
        phase: Phase,
        model: SequenceModel,
        optimiser: torch.optim.Optimizer,
        average: Average | None = None,
    ) -> None:
        """Put model, optimiser and mean where the last round left them, if it was one of this phase."""
        if self.file is not None and self.done(phase) and self.history[-1].phase == phase:
            state = load_checkpoint(self.file, model, optimiser)
            if average is not None:
                average.restore(read_kept(self.file, AVERAGE), state["averaged_steps"])

    def keep(
        self, model: SequenceModel, optimiser: torch.optim.Optimizer, average: Average | None = None
    ) -> None:
        """Write all of it, in one step."""
        if self.file is None:
            return
        state = {
            "history": [asdict(progress) for progress in self.history],
            "first": None if self.first is None else asdict(self.first),
            "best_round": self.best_round,
            "seconds": self.seconds,
            "averaged_steps": 0 if average is None else average.steps,
        }
        mean = {} if average is None else average.weights
        save_checkpoint(self.file, model, optimiser, state, {BEST: self.best, AVERAGE: mean})


def _progress(entry: Mapping[str, Any]) -> Progress:
    tuning = entry["tuning"]
    return Progress(**{**entry, "tuning": None if tuning is None else Tuning(**tuning)})


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return copy.deepcopy(dict(weights))
