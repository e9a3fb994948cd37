"""Processor seconds of a run, by what they were spent on: wall time says little on a busy machine."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

FILE = "processor.jsonl"


class ProcessorTime:
    """Appends to a file of the run directory, so that a run that was stopped keeps what it had spent."""

    def __init__(self, run: Path) -> None:
        self._path = run / FILE

    @contextlib.contextmanager
    def spent_on(self, what: str) -> Iterator[None]:
        """This process's seconds within, of user and system together."""
        before = time.process_time()
        try:
            yield
        finally:
            self.add(what, time.process_time() - before)

    def add(self, what: str, seconds: float) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, round(seconds, 4)]) + "\n")

    def on(self, what: str) -> float:
        """Seconds so far; 0 where nothing was written down."""
        if not self._path.is_file():
            return 0.0
        lines = self._path.read_text(encoding="utf-8").splitlines()
        return float(sum(seconds for name, seconds in map(json.loads, lines) if name == what))
