"""Windows kept are the windows cut: for the same data, task and release, and never a damaged file."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hymate.config import TaskConfig
from hymate.data import window_cache
from hymate.data.tasks import Windows
from hymate.data.window_cache import FRAMES, kept_dataset, kept_windows
from tests.hymate.data.small import NAN, TASK, random_stays, windows

DATASET = "d" * 64
WINDOWS = replace(
    windows(
        [[(0.5, "HR", 90.0), (0.5, "ünï", NAN), (1.25, "HR", -0.0)], [], [(2.0, "", 7.0)]],
        splits=["train", "held_out", "tuning"],
        labels=[1.0, None, 0.0],
        static={0: [("SEX//F", None), ("Age", 40.0)], 2: [("Age", NAN)]},
    ),
    left_out={"no split": 3, "fewer than 1 observations": 0},
)


class Cutter:
    """Counts how often it was asked."""

    def __init__(self, made: Windows = WINDOWS) -> None:
        self.made = made
        self.calls = 0

    def __call__(self) -> Windows:
        self.calls += 1
        return self.made


def same(found: Windows, expected: Windows) -> None:
    for name in FRAMES:
        assert_frame_equal(getattr(found, name), getattr(expected, name), check_exact=True)
    bits = [frame.triplets["value"].to_numpy().tobytes() for frame in (found, expected)]
    assert bits[0] == bits[1]
    assert found.left_out == expected.left_out


def test_the_second_time_nothing_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut = Cutter()
    first = kept_windows(tmp_path / "kept", DATASET, TASK, cut)
    second = kept_windows(tmp_path / "kept", DATASET, TASK, cut)
    assert cut.calls == 1
    for found in (first, second):
        same(found, WINDOWS)
        assert found.dataset == DATASET
    assert kept_dataset(tmp_path / "kept") == DATASET
    assert caplog.records == []


def test_windows_of_nothing_and_of_many_codes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, made in [("none", windows([])), ("many", windows(random_stays(rng, [300, 0, 1], 250)))]:
        cut = Cutter(made)
        for _ in range(2):
            same(kept_windows(tmp_path / name, DATASET, TASK, cut), made)
        assert cut.calls == 1


@pytest.mark.parametrize("field", ["dataset", "task", "release", "schema"])
def test_windows_for_anything_else_are_cut_again(
    tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept_windows(tmp_path, DATASET, TASK, Cutter())
    newer = Cutter(windows([[(1.0, "pH", 7.4)]]))
    dataset, task = DATASET, TASK
    if field == "dataset":
        dataset = "e" * 64
    elif field == "task":
        task = TaskConfig(keep="earliest")
    elif field == "release":
        monkeypatch.setattr(window_cache, "version", lambda _: "99.0")
    else:
        monkeypatch.setattr(window_cache, "SCHEMA", 99)
    for _ in range(2):
        same(kept_windows(tmp_path, dataset, task, newer), newer.made)
    assert newer.calls == 1
    assert len(list(tmp_path.glob("windows-*"))) == 1, "the older windows are gone"
    assert caplog.records == []


def _file(path: Path, name: str) -> Path:
    return next(path.glob(f"windows-*/{name}.arrow"))


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(_file(path, "triplets"), 100),
        lambda path: _file(path, "stays").write_bytes(b""),
        lambda path: _file(path, "static").unlink(),
        lambda path: _flip(_file(path, "triplets")),
        lambda path: shutil.rmtree(next(path.glob("windows-*"))),
        lambda path: (path / "windows.json").write_text("{"),
        lambda path: (path / "windows.json").write_text("[]"),
        lambda path: (path / "windows.json").write_bytes(b"\xff\xfe"),
        lambda path: _edit(path, left_out=[]),
        lambda path: _edit(path, checksums={}),
    ],
    ids=["short", "empty", "missing", "a bit", "no folder", "broken", "a list", "binary", "counts", "sums"],
)
def test_damaged_windows_are_cut_again(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    cut = Cutter()
    kept_windows(tmp_path, DATASET, TASK, cut)
    damage(tmp_path)
    same(kept_windows(tmp_path, DATASET, TASK, cut), WINDOWS)
    assert cut.calls == 2
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert str(tmp_path) in record.message
    assert "kept windows are damaged" in record.message
    assert "\n" not in record.message
    same(kept_windows(tmp_path, DATASET, TASK, cut), WINDOWS)
    assert cut.calls == 2, "mended"


def _edit(path: Path, **changed: object) -> None:
    header = json.loads((path / "windows.json").read_text())
    (path / "windows.json").write_text(json.dumps({**header, **changed}))


def test_where_windows_cannot_be_kept_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    same(kept_windows(tmp_path / "file", DATASET, TASK, Cutter()), WINDOWS)
    assert kept_dataset(tmp_path / "file") is None

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_ipc", full)
    found = kept_windows(tmp_path / "full", DATASET, TASK, Cutter())
    same(found, WINDOWS)
    assert found.dataset == DATASET
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == [".lock"]
    assert [record.message.split(": ")[-1] for record in caplog.records] == [
        "windows cannot be kept (File exists); they are cut at every question",
        "windows cannot be kept (No space left on device); they are cut at every question",
    ]


def test_a_fault_while_cutting_is_the_callers_and_keeps_the_older_windows(tmp_path: Path) -> None:
    kept_windows(tmp_path, DATASET, TASK, Cutter())

    def broken() -> Windows:
        raise FileNotFoundError("data/0.parquet")

    with pytest.raises(FileNotFoundError, match=r"data/0\.parquet"):
        kept_windows(tmp_path, "e" * 64, TASK, broken)
    cut = Cutter()
    same(kept_windows(tmp_path, DATASET, TASK, cut), WINDOWS)
    assert cut.calls == 0


def test_two_that_ask_at_once_cut_once(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    cut = Cutter()

    def slowly() -> Windows:
        begun.set()
        assert go_on.wait(30)
        return cut()

    found: list[Windows] = []

    def ask(how: Callable[[], Windows]) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(kept_windows(tmp_path, DATASET, TASK, how)))
        thread.start()
        return thread

    first = ask(slowly)
    assert begun.wait(30)
    second = ask(cut)
    second.join(0.2)
    assert second.is_alive(), "the second waits for the first"
    go_on.set()
    first.join(30)
    second.join(30)
    assert cut.calls == 1
    assert len(found) == 2
    for each in found:
        same(each, WINDOWS)
