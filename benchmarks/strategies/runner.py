"""Runs what a table still lacks: each run in a process and on a core of its own, pretrainings first.

A stop loses the round under way: the same command goes on. A run that fails is told in one line, and the
others are run all the same.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from time import monotonic, sleep

from benchmarks.children import POLL_SECONDS, Child, Say, duration, ended, last_line, stop_all
from benchmarks.records import commit_now
from benchmarks.strategies.figures import Figures
from benchmarks.strategies.runs import Run, Table
from benchmarks.tables import number
from hymate.errors import InputFault

ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


class Runner:
    """A table's runs in their order, `jobs` at a time; each after the pretraining it begins with."""

    def __init__(self, table: Table, wanted: Collection[str], jobs: int, say: Say = print) -> None:
        self._table, self._jobs, self._say = table, jobs, say
        self._wanted = [run for run in table.runs if not wanted or run.row in wanted]
        self._commit = commit_now()
        self._active: list[Child[Run]] = []
        self._seconds: list[float] = []
        self._ended: set[str] = set()
        """Ids of runs that finished or failed."""
        self.faults: list[str] = []

    def go(self) -> list[str]:
        """Run what is not finished; returns one line for each run that failed. Stopped by Ctrl-C or
        SIGTERM, the runs stop as well."""
        for run in self._wanted:
            try:
                self._ended |= {run.id} if run.state() == "finished" else set()
            except InputFault as fault:
                self._fault(run, str(fault))
        done, total = len(self._ended), len({run.id for run in self._wanted})
        self._say(f"{self._table.name}: {total} runs, {done} finished before")
        try:
            while (due := self._due()) or self._active:
                self._start_some(due)
                sleep(POLL_SECONDS)
                self._look()
        finally:
            stop_all(self._active)
        return self.faults

    def _due(self) -> list[Run]:
        """What is still to be run: of a row's candidates, after the first seed, the chosen one alone."""
        found: dict[str, Run] = {}
        busy = {active.run.id for active in self._active}
        for run in self._wanted:
            if run.id in self._ended or run.id in busy:
                continue
            first = self._table.of(run.row, run.attack)[0].seed
            if run.seed == first or run in self._table.chosen(run.row, run.attack):
                found.setdefault(run.id, run)
        return list(found.values())

    def _start_some(self, due: Sequence[Run]) -> None:
        busy = {active.run.id for active in self._active}
        for run in due:
            if len(self._active) >= self._jobs:
                return
            base = self._table.pretrainings.get(run.id)
            if base is None or base.state() == "finished":
                self._start(run, base)
            elif base.id in self._ended:
                self._fault(run, f"its pretraining failed ({base.beside('log')})")
            elif base.id not in busy:
                self._start(base, None)
                busy |= {base.id}

    def _start(self, run: Run, base: Run | None) -> None:
        try:
            run.place.lay_out(run.out)
            begun = run.state() == "begun"
            job = run.note(self._commit, base)
        except InputFault as fault:
            self._fault(run, str(fault))
            return
        words = ["benchmarks.strategies.job", str(job)]
        self._active.append(Child.begin(run, words, run.beside("log"), {**os.environ, **ONE_CORE}))
        self._say(f"  {run.told}: {'goes on' if begun else 'begins'} ({run.beside('log')})")

    def _look(self) -> None:
        for run, code, took in ended(self._active, self._going):
            self._ended.add(run.id)
            if code:
                log = run.beside("log")
                self._fault(run, f"{last_line(log, 'ended with')} ({log})")
                continue
            self._seconds.append(took)
            left = len(self._due()) + len(self._active)
            about = duration(left * sum(self._seconds) / len(self._seconds) / self._jobs)
            rest = f"; {left} left, about {about}" if left else ""
            self._say(f"  {run.told}: {_told(run)} in {duration(took)}{rest}")

    def _going(self, active: Child[Run]) -> None:
        self._say(f"  {active.run.told}: {duration(monotonic() - active.began)} so far")

    def _fault(self, run: Run, what: str) -> None:
        self._ended.add(run.id)
        self.faults.append(f"{run.told}: {what}")
        self._say(f"  failed: {self.faults[-1]}")


def _told(run: Run) -> str:
    if run.kind == "pretraining":
        return "done"
    figures: Figures = run.figures()
    if figures.held_out is None:
        return f"the study failed ({figures.failed})"
    pooled, worst = figures.held_out.auroc, figures.held_out.worst
    return f"AUROC {number(pooled)}, worst site {number(worst)}"
