"""Trains what a table still lacks: each run in a process of its own, and as far as it came before.

A stop loses the round under way: the same command goes on. A run that fails is told in one line, and the
others are run all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from benchmarks.experiments.runs import Run, commit_now
from hymate.errors import InputFault

Say = Callable[[str], None]

POLL_SECONDS = 0.2
TOLD_EVERY_SECONDS = 60.0


@dataclass
class Outcome:
    """What became of the runs that were wanted."""

    finished: list[Run] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """One line a run that failed."""


@dataclass
class _Training:
    run: Run
    process: subprocess.Popen[bytes]
    began: float
    told: float


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Nobody else runs experiments in `out` within; `InputFault` where somebody does."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for them, or give another --out; several at once: --jobs"
            raise InputFault(out, "other experiments are running here", remedy) from None
        yield


class Runner:
    """Runs in the order given, `jobs` at a time, but never two that pretrain the same weights."""

    def __init__(self, table: str, runs: Sequence[Run], jobs: int, say: Say = print) -> None:
        self._table, self._jobs, self._say = table, jobs, say
        self._commit = commit_now()
        self._outcome = Outcome()
        self._pending: list[Run] = []
        self._active: list[_Training] = []
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
            self._stop_all()
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
        command = [sys.executable, "-m", *training_command(run, source, begun)]
        environment = dict(os.environ)
        if self._jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self._jobs)))
        # The log is written by the child itself: it outlives this process.
        with run.beside("log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment
            )
        how = "goes on" if begun else "shares its pretraining" if source else "begins"
        now = monotonic()
        self._active.append(_Training(run, process, now, now))
        self._say(f"  {run.row}, {run.replicate}: {how} ({run.beside('log')})")

    def _look(self) -> None:
        """What has ended, and how far the others are."""
        for training in list(self._active):
            code, run = training.process.poll(), training.run
            now = monotonic()
            if code is None:
                if now - training.told > TOLD_EVERY_SECONDS:
                    training.told = now
                    self._say(f"    {run.row}, {run.replicate}: {_round(run)}")
                continue
            self._active.remove(training)
            try:
                if code or run.state() != "finished":
                    raise InputFault(run.beside("log"), f"ended with {code} ({_last_line(run)})", "see there")
                took = now - training.began
                self._finish(run, took)
            except InputFault as fault:
                self._fault(run, str(fault))
                continue
            self._say(f"  {run.row}, {run.replicate}: {told(run)}, {duration(took)}{self._left()}")

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

    def _stop_all(self) -> None:
        """A training that is stopped keeps its last complete round."""
        for training in self._active:
            training.process.terminate()
        for training in self._active:
            try:
                training.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                training.process.kill()
                training.process.wait()


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

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    return f"AUROC {shown(found['auroc'])}, AP {shown(found['average_precision'])}"


def duration(seconds: float) -> str:
    """
    >>> duration(42.4), duration(312), duration(7500)
    ('42 s', '5 min 12 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _round(run: Run) -> str:
    line = run.last_round()
    if not line:
        return "first round"
    return f"{line['phase']} {line['round']}/{line['rounds']}, {duration(line['seconds'])} a round"


def _last_line(run: Run) -> str:
    try:
        lines = run.beside("log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"
