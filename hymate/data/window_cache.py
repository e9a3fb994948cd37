"""A site's windows, cut once for each data set and task and kept as Arrow files.

Describing a site, its statistics and its store all start from the same windows; each may be asked for by
a process of its own. The files lie in the site's cache folder, hold rows, never leave the site, and may
be deleted at any time. On disk, exchanged in one step (`hymate.data.exchange`):

    CACHE/windows.json       header: fingerprint of the data set, task, versions, checksums
    CACHE/windows-<random>/  stays.arrow, triplets.arrow, static.arrow

Kept windows are used for the very data set, task and version they were cut under; else they are cut again.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import polars as pl

from hymate.config import TaskConfig
from hymate.data.exchange import exchange, locked
from hymate.data.tasks import Windows

SCHEMA = 1
HEADER = "windows.json"
FRAMES = ("stays", "triplets", "static")
CHUNK = 1 << 22

_log = logging.getLogger(__name__)


class _Unusable(Exception):
    """Why kept windows cannot be used."""


def kept_windows(path: Path, dataset: str, task: TaskConfig, cut: Callable[[], Windows]) -> Windows:
    """The windows of `task` kept at `path`; where there are none, what `cut` returns, kept from now on.

    Both give identical frames. Two processes that ask at the same time cut once. Damaged files, or a
    disk that cannot take new ones, cost time and a line in the log, nothing else.

    Args:
        path: folder of this task's windows; `cut` decides under which task and from which data set.
        dataset: fingerprint of the data set (`hymate.data.fingerprint`).
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(path))
        except OSError as fault:
            _say_not_kept(path, fault)
            return replace(cut(), dataset=dataset)
        return _kept_or_cut(path, dataset, task, cut)


def kept_dataset(path: Path) -> str | None:
    """Fingerprint of the data set whose windows are kept at `path`; None where none are, or damaged."""
    try:
        return str(json.loads((path / HEADER).read_text(encoding="utf-8"))["dataset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _say_not_kept(path: Path, fault: OSError) -> None:
    why = str(fault.strerror or fault).split("\n", maxsplit=1)[0]
    _log.warning("%s: windows cannot be kept (%s); they are cut at every question", path, why)


def _kept_or_cut(path: Path, dataset: str, task: TaskConfig, cut: Callable[[], Windows]) -> Windows:
    try:
        found = _read(path, dataset, task)
    except (_Unusable, OSError) as fault:
        _log.warning("%s: kept windows are damaged (%s); they are cut again", path, fault)
    else:
        if found is not None:
            return found
    windows = replace(cut(), dataset=dataset)
    try:
        exchange(path, HEADER, "windows", lambda folder: _write(folder, windows, task))
    except OSError as fault:
        _say_not_kept(path, fault)
    return windows


def _read(path: Path, dataset: str, task: TaskConfig) -> Windows | None:
    """Kept windows; None where there are none, or for something else. _Unusable: they are damaged."""
    try:
        text = (path / HEADER).read_bytes()
    except FileNotFoundError:
        return None
    wanted = _made_for(dataset, task)
    try:
        content = json.loads(text)
        if {name: content[name] for name in wanted} != wanted:
            return None
        left_out = {str(reason): int(count) for reason, count in content["left_out"].items()}
        files = {name: path / content["folder"] / f"{name}.arrow" for name in FRAMES}
        checksums = {name: content["checksums"][name] for name in FRAMES}
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise _Unusable(f"{HEADER}: {type(fault).__name__}") from None
    for name, file in files.items():
        if not file.is_file() or _checksum(file) != checksums[name]:
            raise _Unusable(f"{name}.arrow is not as it was written")
    try:
        frames = {name: pl.read_ipc(file) for name, file in files.items()}
    except pl.exceptions.PolarsError as fault:
        raise _Unusable(str(fault).split("\n")[0]) from None
    strings = pl.selectors.enum().cast(pl.String)
    return Windows(
        **{name: frame.with_columns(strings) for name, frame in frames.items()},
        left_out=left_out,
        dataset=dataset,
    )


def _write(folder: Path, windows: Windows, task: TaskConfig) -> str:
    """Write the frames into the new `folder`, down to the disk; the header that will name it."""
    checksums = {}
    for name in FRAMES:
        frame: pl.DataFrame = getattr(windows, name)
        # A code is written once, not once a row.
        frame = frame.with_columns(
            frame[column].cast(pl.Enum(frame[column].unique().sort()))
            for column, kind in frame.schema.items()
            if kind == pl.String
        )
        file = folder / f"{name}.arrow"
        try:
            frame.write_ipc(file, compression="uncompressed")
        except pl.exceptions.PolarsError as fault:
            raise OSError(str(fault)) from None
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        checksums[name] = _checksum(file)
    header = {
        **_made_for(windows.dataset, task),
        "left_out": windows.left_out,
        "folder": folder.name,
        "checksums": checksums,
    }
    return json.dumps(header, indent=1)


def _made_for(dataset: str, task: TaskConfig) -> dict[str, object]:
    """What kept windows must agree with to be used; another release may cut differently."""
    release = version("hymate-federated")
    return {"schema": SCHEMA, "release": release, "dataset": dataset, "task": task.model_dump(mode="json")}


def _checksum(file: Path) -> int:
    """CRC-32 of the whole file: a disk's mistakes, not a forger's."""
    value = 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value
