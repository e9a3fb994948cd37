"""Where the seconds of a piece of work go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

Clocks = npt.NDArray[np.float64]
"""Seconds by the clock and of processor time, (2,)."""


def clocks() -> Clocks:
    """Seconds now: by the clock, and of processor time of this process and all its threads."""
    return np.array([time.perf_counter(), time.process_time()])


@contextmanager
def stopwatch(places: dict[str, tuple[object, str]]) -> Iterator[dict[str, Clocks]]:
    """Seconds spent in each of the named functions; of one inside another, only the inner's count."""
    spent: dict[str, Clocks] = defaultdict(lambda: np.zeros(2))
    running: list[str] = []
    since = np.zeros(2)

    def turn_to(names: list[str]) -> None:
        nonlocal since
        now = clocks()
        if running:
            spent[running[-1]] += now - since
        running[:] = names
        since = now

    def timed(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            turn_to([*running, name])
            try:
                return real(*args, **kwargs)
            finally:
                turn_to(running[:-1])

        return run

    with ExitStack() as patches:
        for name, (owner, attribute) in places.items():
            patches.enter_context(mock.patch.object(owner, attribute, timed(name, getattr(owner, attribute))))
        yield spent
