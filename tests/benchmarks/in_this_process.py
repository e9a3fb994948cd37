"""The processes of experiments, in this one: a process of its own costs each run seconds of imports."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, cast

import torch

from benchmarks.children import Child
from benchmarks.experiments import summary
from benchmarks.strategies import job
from hymate.cli import app
from hymate.command import run_command

MAINS: dict[str, Callable[[list[str]], int]] = {
    "benchmarks.experiments.summary": summary.main,
    "benchmarks.strategies.job": job.main,
    "hymate.cli": lambda words: run_command(app, "hymate", words),
}


class Ended:
    """In place of a process."""

    def __init__(self, code: int) -> None:
        self._code = code

    def poll(self) -> int:
        return self._code


def begin(run: Any, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Child[Any]:
    """In place of `Child.begin`."""
    threads, began = torch.get_num_threads(), monotonic()
    torch.set_num_threads(1)
    with (
        log.open("a", encoding="utf-8") as file,
        contextlib.redirect_stderr(file),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            code = MAINS[words[0]](list(words[1:]))
        except Exception as crash:  # as Python ends a process
            file.write(f"{type(crash).__name__}: {crash}\n")
            code = 1
    torch.set_num_threads(threads)
    return Child(run, cast(Any, Ended(code)), began, began)
