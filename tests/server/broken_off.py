"""A study in a process of its own that ends, as by SIGKILL, at a chosen point; a test starts it anew.

The point is the n-th message to a site, before or after the site worked on it, or the n-th time that
anything is flushed to the disk: by the coordinator (checkpoints, journals, the model) or by a site (its
stores, its optimiser's state), in the middle of writing a file or right after.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Literal, cast

from flwr.app import Message
from flwr.serverapp import Grid

from server.app import run_study
from server.study import StudyConfig
from tests.in_process import InProcessGrid

KILLED = 137
IMPORTED_LATE = ("torch._dynamo", "torch.utils.tensorboard", "sklearn.metrics", "matplotlib.pyplot")
"""What a study imports on its way, seconds in all."""
Point = tuple[Literal["asked", "answered", "flushed"], int]


def carry(folder: Path, sites: list[str], study: StudyConfig, point: Point | None) -> None:
    """Run the study in `folder`, or go on there, up to `point`."""
    import torch

    torch.set_num_threads(1)
    kind, number = point or ("", 0)
    happened = _Countdown(number)
    if kind == "flushed":
        flush = os.fsync

        def flushing(descriptor: Any) -> None:
            happened()
            flush(descriptor)

        os.fsync = flushing  # type: ignore[assignment]
    grid = InProcessGrid(folder, sites)
    if kind in ("asked", "answered"):
        _interrupt(grid, kind, happened)
    run_study(cast(Grid, grid), study, folder, expected_sites=len(sites), clock=grid.time)


def _interrupt(grid: InProcessGrid, kind: str, happened: Callable[[], None]) -> None:
    answer = grid._answer

    def answering(node: int, message: Message) -> Message:
        if kind == "asked":
            happened()
        reply = answer(node, message)
        if kind == "answered":
            happened()
        return reply

    grid._answer = answering  # type: ignore[method-assign]


class _Countdown:
    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            os._exit(KILLED)


def processes() -> ForkServerContext:
    """Processes that start with everything imported and nothing run: they cost no second each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *IMPORTED_LATE])
    return context


def in_process(context: ForkServerContext, *arguments: Any) -> int:
    """`carry` in a process of its own; returns its exit code."""
    process = context.Process(target=carry, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode
