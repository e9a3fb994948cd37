"""Seconds of each phase, over all the processes that carried the study."""

from __future__ import annotations

import time
from collections.abc import Mapping


class PhaseClock:
    """Adds up the time since the last lap under a phase's name; a run that goes on starts from `seconds`."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._before = dict(seconds or {})
        self._phase = ""
        self._last = time.perf_counter()

    def begin(self, phase: str) -> None:
        """What follows is of this phase."""
        self._before = self.seconds
        self._phase = phase
        self._last = time.perf_counter()

    @property
    def seconds(self) -> dict[str, float]:
        """Phase -> seconds so far, the one under way included, and their sum as `total`."""
        laps = {name: lap for name, lap in self._before.items() if name != "total"}
        if self._phase:
            laps[self._phase] = round(laps.get(self._phase, 0.0) + time.perf_counter() - self._last, 3)
        return {**laps, "total": round(sum(laps.values()), 3)}
