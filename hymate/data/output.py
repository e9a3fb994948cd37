"""Folders that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hymate.errors import InputFault

SUMMARY = "summary.json"
TRUTH = "truth.json"
TRUTH_TABLES = "truth"
MADE_BY = "hymate data"

_REMEDIES = {
    errno.ENOSPC: "free some space, or give a folder on another disk",
    errno.EDQUOT: "free some of your quota, or give a folder on another disk",
    errno.EACCES: "give a folder you may write to",
    errno.EPERM: "give a folder you may write to",
    errno.EROFS: "give a folder you may write to",
    errno.ENOTDIR: "give a path whose parents are folders",
    errno.EEXIST: "give a path whose parents are folders",
    errno.ENAMETOOLONG: "give a shorter path",
}


@contextmanager
def fresh_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of `target` that becomes `target` when the block ends well.

    If the block raises, the temporary folder is removed and whatever stood at `target` stays as it was.

    Args:
        target: must not exist, or be an empty folder, unless `replace`.
        replace: exchange an existing folder for the new one.

    Raises:
        InputFault: `target` is occupied, cannot be written, or the disk is full.
    """
    if not replace and _occupied(target):
        raise InputFault(target, "exists already", "give another path, or remove it first")
    temporary = target.parent / f".{target.name}.partial-{secrets.token_hex(4)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        _move_into_place(temporary, target)
    except OSError as fault:
        if fault.errno not in _REMEDIES:
            raise
        what = f"cannot be written ({os.strerror(fault.errno)})"
        raise InputFault(target, what, _REMEDIES[fault.errno]) from fault
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _occupied(target: Path) -> bool:
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def _move_into_place(temporary: Path, target: Path) -> None:
    """Rename; an older folder steps aside first and comes back if the rename fails."""
    if not _occupied(target):
        temporary.replace(target)
        return
    aside = target.parent / f".{target.name}.old-{secrets.token_hex(4)}"
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


def refuse_foreign(target: Path, *, force: bool) -> None:
    """Let an output folder of `hymate data` be replaced under `--force`, and nothing else.

    Raises:
        InputFault: `target` holds something this command did not write, or `force` was not given.
    """
    if not _occupied(target):
        return
    if not _is_output(target):
        raise InputFault(
            target, "exists already and holds other things than this command wrote", "give another --out"
        )
    if not force:
        raise InputFault(target, "exists already", "give another --out, or --force to replace it")


def _is_output(target: Path) -> bool:
    try:
        summary = json.loads((target / SUMMARY).read_text(encoding="utf-8"))
        written = {*summary["sites"], SUMMARY, TRUTH, TRUTH_TABLES}
        made_by = str(summary["made_by"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return made_by.startswith(MADE_BY) and {entry.name for entry in target.iterdir()} <= written


def require_space(target: Path, needed: int) -> None:
    """Refuse before anything is written when the disk of `target` has less than `needed` bytes free."""
    place = target.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        what = f"not enough disk: about {needed / 2**20:,.0f} MiB needed, {free / 2**20:,.0f} MiB free"
        raise InputFault(target, what, "free some space, or give a folder on another disk")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` readably; the same content gives the same bytes."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
