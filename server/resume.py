"""Going on with a run that broke off: whose it is, where it stands, and that nobody else carries it."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from hymate.errors import InputFault
from server.checkpoint import FOLDER, Checkpoints
from server.failure import StudyFailure
from server.journal import STATUS, cut_back, read_status
from server.study import StudyConfig, load_study

LOCK = ".lock"
LOCK_WAIT_S = 30.0


def refuse_unfinished(out: Path) -> None:
    """Raise `InputFault` where `out` holds a run with work in it that would be set aside unnoticed."""
    if (out / "study.yaml").is_file() and read_status(out) != "finished":
        raise InputFault(
            out, "holds a run that has not finished", "add --resume to go on with it, or choose another --out"
        )


def has_work(out: Path) -> bool:
    """Whether a run got as far as its first checkpoint."""
    return any((out / FOLDER).glob("*-*.safetensors"))


def changed_section(earlier: StudyConfig, now: StudyConfig, apart_from: Collection[str] = ()) -> str:
    """The first section in which two studies differ in what they learn; '' where they do not.

    Who must answer, how sites are reached and how many train at a time may change on the way.
    """
    for key in StudyConfig.model_fields:
        if key in ("participation", "federation", *apart_from):
            continue
        before, after = getattr(earlier, key), getattr(now, key)
        if key == "simulation" and before is not None and after is not None:
            before, after = before.as_if_elsewhere(), after.as_if_elsewhere()
        if before != after:
            return key
    return ""


def roll_back(folder: Path, study: StudyConfig, apart_from: Collection[str] = ()) -> list[str]:
    """Make the unfinished run in `folder` ready to go on; returns what a person should know, in lines.

    The journals are cut back to the last checkpoint that is whole, so that a reader starts with what
    holds.

    Args:
        apart_from: sections of the study that say nothing of this run.

    Raises:
        InputFault: the run is of a study that learns something else.
        StudyFailure: a process still carries the run.
    """
    changed = changed_section(load_study(folder / "study.yaml"), study, apart_from)
    if changed:
        raise InputFault(
            folder / "study.yaml",
            f"the run was begun with another '{changed}'",
            "give the study file it was begun with, or choose another --out",
        )
    with only_one(folder):
        (folder / STATUS).unlink(missing_ok=True)
        checkpoints = Checkpoints(folder)
        last = checkpoints.last
        cut_back(folder, last.study["marks"] if last else (0, 0))
    return [*checkpoints.notes, f"going on {f'after {last.words}' if last else 'from the beginning'}"]


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the run directory: two processes that carry one study would write over each other.

    The lock goes with the process, however it ends. One that was told to end is given a moment.
    """
    with (folder / LOCK).open("w") as lock:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StudyFailure(f"another process runs the study in {folder}") from None
                time.sleep(0.2)
        yield
