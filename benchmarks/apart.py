"""A piece of work in a process of its own, and the most memory that it held."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def apart(work: Callable[..., Found], *arguments: object) -> Found:
    """What `work` returns, from a fresh process."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, work, *arguments))
    process.start()
    theirs.close()
    try:
        found: Found = ours.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__} failed") from None
    finally:
        process.join()
    return found


def _send(pipe: Connection, work: Callable[..., Found], *arguments: object) -> None:
    pipe.send(work(*arguments))


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    try:  # getrusage also counts what the parent held before it started this program
        status = Path("/proc/self/status").read_text(encoding="ascii")
        kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    return kib / 2**20
