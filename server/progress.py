"""What a person sees while a study runs: a live table or line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from server.journal import METRICS, PARTICIPATION
from server.study_view import StudyView

TITLES = {
    "describe": "asking every hospital what it holds",
    "vocabulary": "agreeing on the vocabulary",
    "pretrain": "pretraining (masked forecasting)",
    "finetune": "fine-tuning on the label",
    "evaluate": "scoring held-out stays",
    "alone": "training every hospital by itself, for comparison",
    "shared": "scoring the model that all hospitals share",
    "pooled": "training on all hospitals' stays at one place, for comparison",
    "matrix": "scoring every hospital's own model at every hospital",
    "left_out": "training without each hospital in turn",
    "compare": "comparing models on the same stays",
    "report": "writing the report",
}

QUIET = ("asked", "joined", "replied", "undrawn")
"""What becomes of a site in a good round."""


class Lines:
    """A file of JSON lines that grows: each pass gives what is new and whole.

    New is what was written later than the last line given. A study that goes on cuts off the lines
    behind its last checkpoint, so a place in the file would not do.
    """

    def __init__(self, path: Path, *, from_now: bool = False) -> None:
        self._path = path
        self._after = time.time() if from_now else 0.0
        self._size = -1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self._path.is_file() or self._path.stat().st_size == self._size:
            return
        content = self._path.read_bytes()
        self._size = len(content)
        whole, _, _ = content.rpartition(b"\n")  # the rest is still being written
        for line in whole.splitlines():
            event = json.loads(line)
            if event["time"] > self._after:
                self._after = event["time"]
                yield event


class Progress:
    """Reads a run's `metrics.jsonl` as it grows and says each new thing once, on stderr."""

    def __init__(self, run: Path, console: Console, *, resumed: bool = False) -> None:
        """Args: resumed: what the run said before is old news."""
        self._metrics = Lines(run / METRICS, from_now=resumed)
        self._console = console
        self._began = time.monotonic()
        self._status = console.status("starting Flower and Ray") if console.is_terminal else None
        if self._status:
            self._status.start()

    def __call__(self) -> None:
        """Say what was written since the last call."""
        for event in self._metrics:
            describe(event, self._console, self._began)
            if self._status and event["event"] == "began":
                self._status.update(TITLES.get(event["phase"], event["phase"]))

    def close(self) -> None:
        if self._status:
            self._status.stop()


class DeploymentProgress:
    """The same lines, and how each site fares: a table on a terminal, else a line for each trouble."""

    def __init__(self, run: Path, console: Console, view: StudyView, *, resumed: bool = False) -> None:
        self._metrics = Lines(run / METRICS, from_now=resumed)
        self._participation = Lines(run / PARTICIPATION, from_now=resumed)
        self._console = console
        self._view = view
        self._began = time.monotonic()
        self._title = "starting SuperLink"
        self._last_wait = ""
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        if self._live:
            self._live.start()
            self._show()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def waiting(self, online: Mapping[str, bool]) -> None:
        self._view.waiting(online)
        self._title = "waiting for sites"
        words = ", ".join(f"{site} {status}" for site, status in self._view.status.items())
        if words != self._last_wait and not self._live:
            self.say(f"waiting for sites: {words}")
        self._last_wait = words
        self._show()

    def __call__(self) -> None:
        """Say what was written since the last call."""
        for event in self._metrics:
            self._view.progress(event)
            self._title = TITLES.get(self._view.phase, self._view.phase)
            describe(event, self._console, self._began)
        for line in self._participation:
            self._view.participation(line)
            if line["outcome"] not in QUIET:
                reason = f": {line['reason']}" if line.get("reason") else ""
                self.say(f"       {line['site']} {line['outcome']}{reason}")
        self._show()

    def close(self) -> None:
        if self._live:
            self._live.stop()

    def _show(self) -> None:
        if self._live:
            self._live.update(self._view.table(self._title))


def describe(event: Mapping[str, Any], console: Console, began: float) -> None:
    """One thing of `metrics.jsonl` in words; where a run goes on, `roll_back` has told already."""
    phase, kind = event["phase"], event["event"]
    if phase == "resume":
        return
    elapsed = time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - began)).removeprefix("00:")
    if kind == "began":
        title = escape(TITLES.get(phase, phase))
        console.print(f"[dim]{elapsed}[/dim]  {title}", highlight=False, soft_wrap=True)
    elif kind == "frozen":
        console.print(
            f"       {event['codes']} codes agreed, {event['dropped']} dropped, hash {event['hash'][:12]}",
            highlight=False,
        )
    elif kind == "paused":
        console.print(f"       paused: {event['cause']}", markup=False, highlight=False, soft_wrap=True)
    elif (phase, kind) == ("left_out", "site"):
        console.print(f"       without {event['site']}", markup=False, highlight=False)
    elif kind == "note":
        console.print(f"       {event['text']}", markup=False, highlight=False, soft_wrap=True)
    elif kind == "round":
        console.print(f"       {_round(event)}", highlight=False, soft_wrap=True)


def _round(event: Mapping[str, Any]) -> str:
    parts = [f"round {event['round']}/{event['rounds']}", f"loss {_number(event['loss'])}"]
    if "forecast_error" in event:
        parts.append(f"before it tuning error {_number(event['forecast_error'])}")
    if "tuning_auroc" in event:
        parts.append(
            f"before it tuning AUROC {_number(event['tuning_auroc'])}, AP {_number(event['tuning_auprc'])}"
        )
    parts.append(f"{event['slowest_s']:.0f} s")
    return ", ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
