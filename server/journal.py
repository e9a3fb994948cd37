"""The run directory's running record: metrics, participation, and how the run ended.

One JSON object a line, written and flushed at once, so that a reader beside the run (the progress
display, a person with `tail -f`) sees it as it happens and a crash loses nothing that was said. A run
that goes on cuts both files back to what its checkpoint knew of.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from hymate.durable import write_text

METRICS = "metrics.jsonl"
PARTICIPATION = "participation.jsonl"
STATUS = "status.json"
BOARD = "tensorboard"

TROUBLES = ("failed", "late", "refused", "quarantined")
"""Outcomes of a site that was asked in a round and gave no usable reply."""


class Journal:
    """Appends to `metrics.jsonl`, `participation.jsonl` and TensorBoard's events of one run."""

    def __init__(self, run: Path, marks: tuple[int, int] = (0, 0)) -> None:
        """`marks` are the lengths in bytes of the two files that hold; what is behind them is cut off."""
        from torch.utils.tensorboard import SummaryWriter

        self.run = run
        cut_back(run, marks)
        self._metrics, self._participation = (
            (run / name).open("a", encoding="utf-8") for name in (METRICS, PARTICIPATION)
        )
        shutil.rmtree(run / BOARD, ignore_errors=True)
        self._board = SummaryWriter(str(run / BOARD))
        self.last_trouble = ""
        """The latest site that gave no usable reply, and why."""
        for line in (run / METRICS).read_text(encoding="utf-8").splitlines():
            self._chart(json.loads(line))

    def marks(self) -> tuple[int, int]:
        """Lengths of both files in bytes, once all of it is on the disk."""
        lengths = []
        for stream in (self._metrics, self._participation):
            os.fsync(stream.fileno())
            lengths.append(os.fstat(stream.fileno()).st_size)
        return lengths[0], lengths[1]

    def metric(self, phase: str, event: str, **values: Any) -> None:
        """One line on the run's progress; numbers given with `round=` also go to TensorBoard, with `site=`
        as the site's own."""
        line = {"time": time.time(), "phase": phase, "event": event, **values}
        _append(self._metrics, line)
        self._chart(line)

    def participation(self, phase: str, server_round: int, site: str, outcome: str, **values: Any) -> None:
        """One line on one site in one round: what happened, and why.

        `asked`, then at most one of `replied`, `failed`, `refused`, `late`, `quarantined`; in between
        `joined` (it introduced itself or agreed to the vocabulary first), `retried`, `lost` (its
        connection); `dropped`: a late reply came. Of a site that was not asked: `absent`, `skipped` (it kept
        failing), `undrawn` (`participation.sample` drew others).
        """
        line = {"time": time.time(), "phase": phase, "round": server_round, "site": site, "outcome": outcome}
        _append(self._participation, {**line, **values})
        if outcome in (*TROUBLES, "absent"):
            self.last_trouble = f"{site} {outcome}: {values.get('reason')}"

    def close(self) -> None:
        for stream in (self._metrics, self._participation):
            stream.close()
        self._board.close()

    def _chart(self, line: dict[str, Any]) -> None:
        if "round" not in line:
            return
        whose = f"/{line['site']}" if "site" in line else ""
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("round", "rounds", "time"):
                tag = f"{line['phase']}/{name}{whose}"
                self._board.add_scalar(tag, value, line["round"], walltime=line["time"])


def write_status(run: Path, state: str, cause: str = "") -> None:
    """Say how the run ended; written once, whole."""
    write_text(run / STATUS, json.dumps({"state": state, "cause": cause}))


def read_status(run: Path) -> str:
    """How the run in this folder ended; empty where it has not."""
    path = run / STATUS
    return str(json.loads(path.read_text(encoding="utf-8"))["state"]) if path.is_file() else ""


def cut_back(run: Path, marks: Sequence[int]) -> None:
    """Cut both journals to so many bytes each, or to the last whole line before."""
    for name, length in zip((METRICS, PARTICIPATION), marks, strict=True):
        path = run / name
        path.touch()
        content = path.read_bytes()[:length]
        os.truncate(path, content.rfind(b"\n") + 1)


def _append(stream: TextIO, record: dict[str, Any]) -> None:
    stream.write(json.dumps(record) + "\n")
    stream.flush()
