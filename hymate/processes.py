"""What a command has started, where that writes and what it said: found again, and gone when the command is.

Processes carry a mark in their environment. A temporary folder is locked by its owner, so that what a
command left that was killed with SIGKILL can be told from what is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from hymate.errors import InputFault

MARK = "HYMATE_LAUNCH"
PREFIX = "hymate-"
LOCK = ".lock"


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """A temporary folder of our own; those whose owners are gone are removed.

    Its name is short: Ray and Python put sockets below it. `InputFault` where none can be made.
    """
    try:
        home = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as fault:
        what = f"holds no temporary files ({fault.strerror})"
        raise InputFault(
            "TMPDIR", what, "let it name a folder with free space that can be written to"
        ) from None
    for left in home.parent.glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), left.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)
    try:
        with (home / f"{LOCK}ing").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            Path(lock.name).rename(home / LOCK)  # nobody else ever finds it unlocked
            yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def marked(mark: str) -> list[psutil.Process]:
    """Every process but this one that inherited this mark, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def end_marked(mark: str) -> None:
    """End them, by force where asking does not do."""
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        left = marked(mark)
        for straggler in left:
            with contextlib.suppress(psutil.Error):
                ask(straggler)
        psutil.wait_procs(left, timeout=5)


def last_line(log: Path) -> str:
    """The last line of a log that says something, for a one-line cause."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))  # Flower's are coloured
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "its log is empty"
