"""Folders whose whole content is exchanged in one step, wherever a process is killed.

    PATH/<header>            names the folder below, and is replaced by one rename
    PATH/<prefix>-<random>/  the content
    PATH/.lock               held while exchanging

The header is the only way to the content, so what a reader finds is the old content until the rename
and the new after it. What a killed process left is removed by the next one.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hymate.durable import flush_folder, write_text


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Make folder `path` and hold its lock; whoever comes second waits."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, also by a kill
        yield


def exchange(path: Path, header: str, prefix: str, write: Callable[[Path], str]) -> None:
    """Let `write` fill a new folder, flush it, and make the header it returns the one that counts.

    Hold `locked(path)`. The header is a JSON object whose `folder` is the new folder's name. Where
    `write` raises, the older content stays.
    """
    folder = path / f"{prefix}-{secrets.token_hex(8)}"
    try:
        folder.mkdir()
        text = write(folder)
        flush_folder(folder)
        write_text(path / header, text)
    finally:
        remove_leftovers(path, header, prefix)


def remove_leftovers(path: Path, header: str, prefix: str) -> None:
    """Remove what the header does not name. The lock is held, so nobody is writing it."""
    try:
        current = json.loads((path / header).read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        current = None
    for folder in path.glob(f"{prefix}-*"):
        if folder.name != current:
            shutil.rmtree(folder, ignore_errors=True)
    for temporary in path.glob(f".{header}.*"):
        temporary.unlink(missing_ok=True)
