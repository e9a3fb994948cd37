"""Processor seconds of everything this process has started, as they pass: unlike a clock, other work on the
machine hardly moves them."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import psutil

EVERY_S = 0.25


@dataclass
class Processor:
    """Looks at all descendants from now and then; `seen` lists (time, seconds so far)."""

    seen: list[tuple[float, float]] = field(default_factory=list)

    def __enter__(self) -> Processor:
        self._look()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> float:
        """Seconds used from `begin` to `end`, both in seconds of `time.time`; from one look to the next they
        are taken to pass evenly."""
        times, seconds = zip(*self.seen, strict=True)
        before, after = np.interp([begin, end], times, seconds)
        return float(after - before)

    def by_program(self) -> dict[str, float]:
        """Seconds so far of each descendant that is there now, by pid and command."""
        found = {}
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found[f"{process.pid} {' '.join(process.cmdline()[:4])}"] = _seconds(process)
        return found

    def _keep_looking(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        self.seen.append((time.time(), sum(self.by_program().values())))


def _seconds(process: psutil.Process) -> float:
    """Its own and those of its children that have ended and been waited for."""
    used = process.cpu_times()
    return float(used.user + used.system + used.children_user + used.children_system)
