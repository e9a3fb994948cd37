"""Where a deployed study stands, read from the lines of its journal: phase, round, sites, time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hymate.report.words import duration

PHASES = (
    *("describe", "vocabulary", "pretrain", "finetune", "evaluate"),
    *("alone", "shared", "pooled", "matrix", "left_out", "compare", "report"),
)
WORDS = {"asked": "working", "joined": "working", "retried": "asked again", "dropped": "late"}
"""Outcomes in `participation.jsonl` by what they mean at the moment; the others stand for themselves."""
GOOD, WAITING = ("online", "replied", "working"), ("not seen yet", "asked again", "late", "skipped", "absent")
IDLE = ("undrawn",)
"""Not asked, and nothing is wrong."""
ROUNDS_REMEMBERED = 5


@dataclass
class StudyView:
    """The latest of everything; fed with the lines of `metrics.jsonl` and `participation.jsonl`."""

    sites: Iterable[str]
    planned: Mapping[str, int]
    """Rounds each training phase may have."""
    phase: str = ""
    round: int = 0
    rounds: int = 0
    status: dict[str, str] = field(default_factory=dict)
    reason: dict[str, str] = field(default_factory=dict)
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=ROUNDS_REMEMBERED))
    _round_began: float | None = None

    def __post_init__(self) -> None:
        self.status = dict.fromkeys(self.sites, "not seen yet")

    def waiting(self, online: Mapping[str, bool]) -> None:
        for site, there in online.items():
            self.status[site] = "online" if there else "not seen yet"

    def progress(self, event: Mapping[str, Any]) -> None:
        """One line of `metrics.jsonl`."""
        phase, kind = str(event["phase"]), event["event"]
        if kind == "began":
            if phase in self.planned and phase != self.phase:
                self._seconds.clear()
            self.phase, self.round, self.rounds = phase, 0, self.planned.get(phase, 0)
            self._round_began = None
        elif kind == "asked":
            self.round = int(event.get("server_round") or 0)
            self._round_began = event.get("time")
        elif kind == "round":
            self.round, self.rounds = int(event["round"]), int(event["rounds"])
            if self._round_began is not None:
                self._seconds.append(float(event["time"]) - self._round_began)

    def participation(self, line: Mapping[str, Any]) -> None:
        """One line of `participation.jsonl`."""
        site = str(line["site"])
        if site in self.status:
            outcome = str(line["outcome"])
            self.status[site] = WORDS.get(outcome, outcome)
            self.reason[site] = str(line.get("reason") or "")

    def seconds_left(self) -> float | None:
        """At most so long for the training rounds still to come, at the pace of the last ones.

        None before the first round of a phase has ended, and outside of training.
        """
        if self.phase not in self.planned or not self._seconds:
            return None
        later = PHASES[PHASES.index(self.phase) + 1 :]
        rounds = max(self.rounds - self.round, 0) + sum(self.planned.get(phase, 0) for phase in later)
        return rounds * sum(self._seconds) / len(self._seconds)

    def table(self, title: str) -> Group:
        """What a terminal shows: where the study is, and one row a site."""
        done = f", round {self.round}/{self.rounds}" if self.rounds else ""
        left = self.seconds_left()
        eta = "" if left is None else f", at most {duration(left)} of training left"
        table = Table(box=None, show_header=False)
        for _ in ("site", "status", "reason"):
            table.add_column(overflow="fold")
        for site, status in self.status.items():
            table.add_row(site, f"[{_colour(status)}]{status}[/]", escape(self.reason.get(site, "")))
        return Group(Text(f"{title}{done}{eta}"), table)


def _colour(status: str) -> str:
    if status in IDLE:
        return "dim"
    return "green" if status in GOOD else "yellow" if status in WAITING else "red"
