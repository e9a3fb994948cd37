"""Trains what a table still lacks: each run in a process of its own, and as far as it came before.

A stop loses the round under way: the same command goes on. A run that fails is told in one line, and the
others are run all the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import sleep

from benchmarks.children import POLL_SECONDS, Child, Say, duration, ended, last_line, stop_all
from benchmarks.experiments.runs import Run
from benchmarks.records import commit_now
from benchmarks.tables import number
from hymate.errors import InputFault


@dataclass
class Outcome:
    """What became of the runs that were wanted."""

    finished: list[Run] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """One line a run that failed."""


class Runner:
    """Runs in the order given, `jobs` at a time, but never two that pretrain the same weights."""

    def __init__(self, table: str, runs: Sequence[Run], jobs: int, say: Say = print) -> None:
        self._table, self._jobs, self._say = table, jobs, say
        self._commit = commit_now()
        self._outcome = Outcome()
        self._pending: list[Run] = []
        self._active: list[Child[Run]] = []
        self._runs = list({run.id: run for run in runs}.values())
        self._seconds: dict[str, list[float]] = {}
        """Of finished runs, by row."""

    def go(self) -> Outcome:
        """Train what is not finished; stopped by Ctrl-C or SIGTERM, the trainings stop as well."""
        for run in self._runs:
            try:
                state = run.state()
            except InputFault as fault:
                self._fault(run, str(fault))
                continue
            if state == "finished":
                self._finish(run, run.figures()["seconds"])
            else:
                self._pending.append(run)
        total, done = len(self._runs), len(self._outcome.finished)
        self._say(f"{self._table}: {total} runs, {done} finished before{self._left()}")
        try:
            while self._pending or self._active:
                self._start_some()
                sleep(POLL_SECONDS)
                self._look()
        finally:
            stop_all(self._active)
        return self._outcome

    def _start_some(self) -> None:
        busy = {training.run.pretraining for training in self._active} - {""}
        for run in list(self._pending):
            if len(self._active) >= self._jobs:
                return
            source = self._pretrained(run)
            if source is None and run.pretraining in busy:
                continue  # somebody is at it
            self._pending.remove(run)
            self._start(run, source)
            busy |= {run.pretraining} - {""}

    def _pretrained(self, run: Run) -> Run | None:
        """A run whose pretrained weights are those that `run` would make."""
        if not run.pretraining:
            return None
        others = (other for other in self._runs if other.pretraining == run.pretraining)
        return next((other for other in others if other.id != run.id and other.has_pretrained), None)

    def _start(self, run: Run, source: Run | None) -> None:
        begun = run.state() == "begun"
        run.note(self._table, self._commit)
        environment = dict(os.environ)
        if self._jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self._jobs)))
        words = training_command(run, source, begun)
        self._active.append(Child.begin(run, words, run.beside("log"), environment))
        how = "goes on" if begun else "shares its pretraining" if source else "begins"
        self._say(f"  {run.row}, {run.replicate}: {how} ({run.beside('log')})")

    def _look(self) -> None:
        """What has ended, and how far the others are."""
        for run, code, took in ended(self._active, self._going):
            try:
                if code or run.state() != "finished":
                    log = run.beside("log")
                    raise InputFault(log, f"ended with {code} ({last_line(log)})", "see there")
                self._finish(run, took)
            except InputFault as fault:
                self._fault(run, str(fault))
                continue
            self._say(f"  {run.row}, {run.replicate}: {told(run)}, {duration(took)}{self._left()}")

    def _going(self, training: Child[Run]) -> None:
        run = training.run
        self._say(f"    {run.row}, {run.replicate}: {_round(run)}")

    def _finish(self, run: Run, seconds: float) -> None:
        self._outcome.finished.append(run)
        self._seconds.setdefault(run.row, []).append(seconds)

    def _fault(self, run: Run, what: str) -> None:
        self._outcome.faults.append(f"{run.row}, {run.replicate}: {what}")
        self._say(f"  failed: {self._outcome.faults[-1]}")

    def _left(self) -> str:
        """How many runs are still to be ended, and how long that takes, by what others took."""
        left = [*self._pending, *(training.run for training in self._active)]
        if not left:
            return ""
        known = [seconds for row in self._seconds.values() for seconds in row]
        if not known:
            return f"; {len(left)} left"
        mean = sum(known) / len(known)
        each = [sum(row) / len(row) if (row := self._seconds.get(run.row, [])) else mean for run in left]
        return f"; {len(left)} left, about {duration(sum(each) / self._jobs)}"


def training_command(run: Run, source: Run | None, begun: bool) -> list[str]:
    """What is run, after `python -m`. A training that has begun goes on by itself."""
    if run.summary is not None:
        fit_on = [argument for split in run.fit_on for argument in ("--fit-on", split)]
        rest = ["--config", str(run.beside("yaml")), "--out", str(run.folder), *fit_on]
        return ["benchmarks.experiments.summary", "--model", run.summary, *rest]
    end = ["--out", str(run.folder), "--resume"]
    if begun:
        return ["hymate.cli", "train", *end]
    pretrained = ["--pretrained", str(source.folder)] if source else []
    return ["hymate.cli", "train", "--config", str(run.beside("yaml")), *pretrained, *end]


def told(run: Run) -> str:
    """The figures of a finished run, for the terminal."""
    found = run.figures()
    return f"AUROC {number(found['auroc'])}, AP {number(found['average_precision'])}"


def _round(run: Run) -> str:
    line = run.last_round()
    if not line:
        return "first round"
    return f"{line['phase']} {line['round']}/{line['rounds']}, {duration(line['seconds'])} a round"
