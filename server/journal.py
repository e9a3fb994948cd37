"""The run directory's running record: metrics, participation, and how the run ended.

One JSON object a line, written and flushed at once, so that a reader beside the run (the progress
display, a person with `tail -f`) sees it as it happens and a crash loses nothing that was said.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from hymate.durable import write_text

METRICS = "metrics.jsonl"
PARTICIPATION = "participation.jsonl"
STATUS = "status.json"


class Journal:
    """Appends to `metrics.jsonl`, `participation.jsonl` and TensorBoard's events of one run."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run = run
        self._metrics = (run / METRICS).open("a", encoding="utf-8")
        self._participation = (run / PARTICIPATION).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run / "tensorboard"))
        self.last_trouble = ""
        """The latest site that gave no usable reply, and why."""

    def metric(self, phase: str, event: str, **values: Any) -> None:
        """One line on the run's progress; numbers given with `round=` also go to TensorBoard."""
        _append(self._metrics, {"time": time.time(), "phase": phase, "event": event, **values})
        if "round" in values:
            for name, value in values.items():
                if isinstance(value, int | float) and name not in ("round", "rounds"):
                    self._board.add_scalar(f"{phase}/{name}", value, values["round"])

    def participation(self, phase: str, server_round: int, site: str, outcome: str, **values: Any) -> None:
        """One line on one site in one round: replied, refused, failed, late or rejected, and why."""
        line = {"time": time.time(), "phase": phase, "round": server_round, "site": site, "outcome": outcome}
        _append(self._participation, {**line, **values})
        if outcome != "replied":
            self.last_trouble = f"{site} {outcome}: {values.get('reason') or 'no reply before the deadline'}"

    def close(self) -> None:
        for stream in (self._metrics, self._participation):
            stream.close()
        self._board.close()


def write_status(run: Path, state: str, cause: str = "") -> None:
    """Say how the run ended; written once, whole."""
    write_text(run / STATUS, json.dumps({"state": state, "cause": cause}))


def _append(stream: Any, record: dict[str, Any]) -> None:
    stream.write(json.dumps(record) + "\n")
    stream.flush()
