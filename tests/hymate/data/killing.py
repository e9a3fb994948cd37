"""A process that is killed while it prepares, again and again: run by `test_killing.py` on its own.

    python -m tests.hymate.data.killing FOLDER KILLS     prints one JSON object

Every prepare runs in a forked process. The parent runs no polars: its threads do not survive a fork.
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from hymate.config import TaskConfig
from hymate.data.store import open_store, prepare_store
from hymate.data.tasks import Windows
from hymate.data.vocabulary import Vocabulary, VocabularyEntry
from hymate.data.window_cache import kept_windows
from hymate.errors import InputFault

TASK = TaskConfig()
VOCABULARY = Vocabulary(codes=(VocabularyEntry("HR", "bpm", 0.0, 1.0, True),), static=())
STAYS, LENGTH = 40, 1000
STATES = (1.0, 2.0)
"""A data set is in one of two states; every value of its windows says which."""


def windows_of(state: float) -> Windows:
    stay = np.repeat(np.arange(STAYS, dtype=np.uint32), LENGTH)
    return Windows(
        stays=pl.DataFrame(
            {
                "stay": np.arange(STAYS, dtype=np.uint32),
                "subject_id": np.arange(STAYS),
                "prediction_time": pl.Series([0] * STAYS).cast(pl.Datetime("us")),
                "split": ["train"] * STAYS,
                "label": np.full(STAYS, state, np.float32),
                "observations": np.full(STAYS, LENGTH, np.uint32),
            }
        ),
        triplets=pl.DataFrame(
            {
                "stay": stay,
                "hours": np.zeros(len(stay), np.float32),
                "code": ["HR"] * len(stay),
                "value": np.full(len(stay), state, np.float32),
            }
        ),
        static=pl.DataFrame(schema={"stay": pl.UInt32, "code": pl.String, "numeric_value": pl.Float32}),
        left_out={},
        dataset="same",
    )


def prepare(folder: Path, state: float) -> None:
    prepare_store(folder / "store", windows_of(state), VOCABULARY, TASK)


def keep(folder: Path, state: float) -> None:
    """Windows of `state`, kept: the older ones are of another data set."""
    cut = replace(windows_of(state), dataset="")
    kept_windows(folder / "windows", f"state {state}", TASK, lambda: cut)


def stored(folder: Path) -> float:
    """The state that the whole store is in."""
    store = open_store(folder / "store", dataset="same", vocabulary_hash=VOCABULARY.hash, task=TASK)
    (state,) = {*store.value.tolist(), *store.label.tolist()}
    assert (len(store), store.lengths.tolist()) == (STAYS, [LENGTH] * STAYS)
    return float(state)


def kept(folder: Path) -> float:
    """The state that the kept windows are in, all three files of them."""
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("hymate").addHandler(handler)
    name = json.loads((folder / "windows" / "windows.json").read_text())["dataset"]

    def cut() -> Windows:
        raise AssertionError("they were not kept whole")

    found = kept_windows(folder / "windows", name, TASK, cut)
    (state,) = {*found.triplets["value"].to_list(), *found.stays["label"].to_list()}
    assert (name, len(found.triplets), warnings) == (f"state {state}", STAYS * LENGTH, [])
    return float(state)


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def finished(child: int) -> None:
    assert os.waitpid(child, 0)[1] == 0


def answer(work: Callable[[Path], float], folder: Path) -> float:
    """What `work` finds, in a process of its own."""
    note = folder / "answer"
    finished(in_child(lambda: note.write_text(str(work(folder)))))
    return float(note.read_text())


def kill_often(
    folder: Path, kills: int, write: Callable[[Path, float], None], read: Callable[[Path], float]
) -> dict[str, int]:
    """Kill a process that writes one state after the other, for ever; each time one state is whole.

    Returns how often it was killed, and how often in the middle: its half-written folder lay there.
    """
    moments = random.Random(0)
    interrupted = 0
    for _ in range(kills):
        reader, writer = os.pipe()

        def forever(writer: int = writer) -> None:
            while True:
                for state in STATES:
                    began = time.perf_counter()
                    write(folder, state)
                    os.write(writer, f"{time.perf_counter() - began:.6f}\n".encode())

        child = in_child(forever)
        os.close(writer)
        with os.fdopen(reader) as lines:
            lines.readline()
            time.sleep(moments.uniform(0, 2) * float(lines.readline()))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        interrupted += len(list(folder.glob("*/*-*"))) - len(list(folder.glob("*/.lock"))) > 0
        assert answer(read, folder) in STATES
    finished(in_child(lambda: write(folder, STATES[0])))
    return {"kills": kills, "interrupted": interrupted}


def full_disk(folder: Path) -> list[str]:
    """What is said where no file may grow beyond a size (the system's own limit, for any user)."""
    whole = 4 * STAYS * LENGTH  # bytes of the array `time`, whose header takes 128 more

    def limited(size: int) -> None:
        windows = windows_of(STATES[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        kept_windows(folder / "windows", "another", TASK, lambda: windows)
        prepare_store(folder / "store", windows, VOCABULARY, TASK)

    def said(size: int) -> str:
        reader, writer = os.pipe()

        def work() -> None:
            try:
                limited(size)
            except InputFault as fault:
                os.write(writer, str(fault).encode())

        finished(in_child(work))
        os.close(writer)
        with os.fdopen(reader) as words:
            return words.read()

    return [said(size) for size in (0, 1000, whole // 2, whole + 64, whole + 127)]


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    result: dict[str, object] = {
        "store": kill_often(folder, kills, prepare, stored),
        "windows": kill_often(folder, kills, keep, kept),
    }
    before = answer(stored, folder), answer(kept, folder)
    result["full"] = full_disk(folder)
    result["after"] = [before, (answer(stored, folder), answer(kept, folder))]
    result["left"] = sorted(entry.name.split("-")[0] for entry in folder.glob("*/*"))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
