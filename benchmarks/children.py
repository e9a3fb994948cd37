"""Processes that an experiment starts: one for each run, stopped when the experiment is."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

from hymate.errors import InputFault

Run = TypeVar("Run")
Say = Callable[[str], None]

POLL_SECONDS = 0.2
TOLD_EVERY_SECONDS = 60.0


@dataclass
class Child(Generic[Run]):
    """The process of one run."""

    run: Run
    process: subprocess.Popen[bytes]
    began: float
    told: float
    """When a person was last told how far it is."""

    @classmethod
    def begin(cls, run: Run, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Child[Run]:
        """`python -m words`; what it says on standard error goes to `log`."""
        with log.open("ab") as file:  # written by the child itself: it outlives this process
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=environment,
            )
        now = monotonic()
        return cls(run, process, now, now)


def ended(active: list[Child[Run]], going: Callable[[Child[Run]], None]) -> Iterator[tuple[Run, int, float]]:
    """What has ended, out of `active`: run, exit code, seconds. `going` hears of the others at times."""
    for child in list(active):
        code, now = child.process.poll(), monotonic()
        if code is None:
            if now - child.told > TOLD_EVERY_SECONDS:
                child.told = now
                going(child)
            continue
        active.remove(child)
        yield child.run, code, now - child.began


def stop_all(children: Sequence[Child[Run]]) -> None:
    """A run that is stopped keeps its last complete round."""
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def last_line(log: Path, apart_from: str = "\n") -> str:
    """The last line said that does not begin with `apart_from`."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    said = [line for line in lines if not line.startswith(apart_from)]
    return said[-1] if said else "it said nothing"


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Nobody else runs experiments in `out` within; `InputFault` where somebody does."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for them, or give another --out; several at once: --jobs"
            raise InputFault(out, "other experiments are running here", remedy) from None
        yield


def duration(seconds: float) -> str:
    """
    >>> duration(42.4), duration(312), duration(7500)
    ('42 s', '5 min 12 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
