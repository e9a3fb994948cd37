"""Which data set is this? A digest that tells a changed data set from the one a store was made of.

It covers the content of what windows and statistics are made from: the parquet files of `data/`,
`metadata/` and `labels/<task>/`, with their paths inside the data set. It does not change when the data
set is copied, moved or restored from a backup, and it does when a row, a split or a label does.

Reading every file at every message would be slow, so a site remembers the digest together with how the
files looked: path, size, time of modification (mtime) and of change (ctime), in nanoseconds. While they
look the same the digest is taken from memory, which costs a few stat calls; otherwise they are read
again (1 GB takes about a second). A program that rewrites a file in place and forges both times, or
writes within the clock's tick (milliseconds) of the first look, is not noticed: git's index trusts the
same signs.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from hymate.data.meds_names import DATA, LABELS, METADATA, parquet_files
from hymate.durable import write_text
from hymate.errors import InputFault

SCHEMA = 1


def fingerprint(root: Path, task: str, memory: Path) -> str:
    """SHA-256 (hex) of the data set at `root`, as far as the label set `task` goes.

    Args:
        memory: JSON file where the digest is kept between calls; safe to delete.

    Raises:
        InputFault: the data set is missing, or cannot be read.
    """
    appearance = look(root, task)
    known = _recall(memory)
    if known.get("look") == appearance:
        return str(known["content"])
    content = _content(root, task)
    if look(root, task) != appearance:
        raise InputFault(root, "changes while it is read", "ask again when the data set is complete")
    with suppress(OSError):  # nothing is lost but the time to read the files again
        write_text(memory, json.dumps({"schema": SCHEMA, "look": appearance, "content": content}) + "\n")
    return content


def look(root: Path, task: str) -> str:
    """Digest of how the files look from outside; milliseconds for tens of files."""
    digest = hashlib.sha256(f"{root.resolve()}\0".encode())
    try:
        for path in _files(root, task):
            seen = path.stat()
            signs = f"{path.relative_to(root)}\0{seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}\0"
            digest.update(signs.encode())
    except OSError as fault:
        raise _unreadable(root, fault) from None
    return digest.hexdigest()


def _content(root: Path, task: str) -> str:
    digest = hashlib.sha256()
    try:
        for path in _files(root, task):
            with path.open("rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(root)}\0{part}\0".encode())
    except OSError as fault:
        raise _unreadable(root, fault) from None
    return digest.hexdigest()


def _files(root: Path, task: str) -> list[Path]:
    data = parquet_files(root / DATA)
    if not data:
        raise InputFault(root, "no MEDS data set is here any more", "put the data set back")
    metadata = parquet_files(root / METADATA)
    return [*data, *metadata, *parquet_files(root / LABELS / task)]


def _unreadable(root: Path, fault: OSError) -> InputFault:
    where = fault.filename or root
    return InputFault(where, f"cannot be read: {fault.strerror}", "make the data set readable again")


def _recall(memory: Path) -> dict[str, object]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = (
        isinstance(content, dict)
        and content.get("schema") == SCHEMA
        and isinstance(content.get("content"), str)
    )
    return content if whole else {}
