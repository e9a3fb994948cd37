"""One run of a study: what all its phases are given, and what it has come to between them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hymate.data.vocabulary import Vocabulary
from hymate.evaluate.histograms import ScoreCells
from server.checkpoint import PHASES, Checkpoint, Checkpoints
from server.journal import Journal
from server.phase_clock import PhaseClock
from server.rounds import Federation
from server.study import StudyConfig
from strategies.arrays import Weights


@dataclass(frozen=True)
class Run:
    """What every phase is given, and where a complete phase or round is written down."""

    study: StudyConfig
    folder: Path
    federation: Federation
    journal: Journal
    checkpoints: Checkpoints
    clock: PhaseClock
    id: str
    """Identity of the run: sites keep what they remember under it."""
    left_out: str = ""
    """The site that takes no part in it, where the study leaves each out in turn."""

    def begin(self, phase: str) -> None:
        """What follows is of this phase."""
        self.clock.begin(phase)
        last = self.checkpoints.last
        if last is None or phase not in PHASES[: PHASES.index(last.phase) + (last.number == 0)]:
            self.journal.metric(phase, "began")

    def complete(
        self, phase: str, number: int, facts: dict[str, Any] | None = None, **arrays: Weights
    ) -> None:
        """This phase (number 0) or round is done: from here the study goes on after a crash."""
        study = {
            "run": self.id,
            "sites": self.federation.roster.dump(),
            "seconds": self.clock.seconds,
            "marks": self.journal.marks(),
        }
        self.checkpoints.save(Checkpoint(phase, number, study, facts or {}, **arrays))

    def training(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """The fields of `protocol.Training`, which every message that trains or scores carries."""
        study = self.study
        return {
            "study": study.name,
            "run": self.id,
            "left_out": self.left_out,
            "task": study.task,
            "model": study.model,
            "vocabulary_hash": vocabulary.hash,
            "seed": study.seed,
        }


@dataclass(frozen=True)
class Finetuned:
    """The weights that did best on tuning, and the round they came from (0 = before fine-tuning)."""

    weights: Weights
    best_round: int
    rounds: int
    tuning: ScoreCells | None = None
    """All sites' tuning stays under these weights, between `hymate.evaluate.edges.first_edges`."""


def open_run(
    study: StudyConfig,
    folder: Path,
    federation_of: Callable[[Journal], Federation],
    id: str = "",
    left_out: str = "",
) -> Run:
    """A run that begins in this folder, or goes on after its last checkpoint.

    Args:
        id: of a run that begins; '': drawn.
    """
    checkpoints = Checkpoints(folder)
    last = checkpoints.last
    stands: dict[str, Any] = (
        last.study if last else {"marks": (0, 0), "seconds": {}, "run": id or secrets.token_hex(8)}
    )
    journal = Journal(folder, (stands["marks"][0], stands["marks"][1]))
    federation = federation_of(journal)
    for note in checkpoints.notes:
        journal.metric("resume", "note", text=note)
    if last:
        federation.roster.restore(stands["sites"])
        journal.metric("resume", "resumed", after=last.phase, server_round=last.number)
    clock = PhaseClock(stands["seconds"])
    return Run(study, folder, federation, journal, checkpoints, clock, stands["run"], left_out)
