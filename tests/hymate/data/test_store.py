"""The store: what went in comes out, it survives a kill anywhere, and it is never used for another study."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hymate.config import TaskConfig
from hymate.data import store as store_module
from hymate.data.store import TripletStore, open_store, prepare_store
from hymate.data.store_header import StoreHeader, StoreMismatch
from hymate.data.tasks import Windows
from hymate.data.vocabulary import Vocabulary, VocabularyEntry
from hymate.errors import InputFault
from tests.hymate.data.small import NAN, TASK, random_stays, vocabulary, windows

VOCABULARY = Vocabulary(
    codes=(
        VocabularyEntry("HR", "bpm", 80.0, 10.0, True),
        VocabularyEntry("ventilated", "", 0.0, 1.0, False),
    ),
    static=(
        VocabularyEntry("Age", "years", 60.0, 20.0, True),
        VocabularyEntry("SEX//F", "", 0.0, 1.0, False),
    ),
)
DATASET = "d" * 64
WINDOWS = replace(
    windows(
        [
            [(0.5, "HR", 90.0), (0.5, "new drug", 1.0), (1.25, "ventilated", NAN)],
            [(3.0, "new drug", NAN)],
            [(2.0, "HR", NAN), (2.0, "HR", 75.0)],
        ],
        subjects=[4, 4, 2**40],
        splits=["held_out", "train", "tuning"],
        labels=[1.0, None, 0.0],
        static={
            0: [("SEX//F", None), ("Age", 1.0), ("Age", 40.0), ("EYES//blue", None)],
            1: [("Age", None)],
            2: [("SEX//F", None)],
        },
    ),
    dataset=DATASET,
)


def prepared(path: Path) -> TripletStore:
    return prepare_store(path, WINDOWS, VOCABULARY, TASK)


def opened(path: Path) -> TripletStore:
    return open_store(path, dataset=DATASET, vocabulary_hash=VOCABULARY.hash, task=TASK)


def test_round_trip_by_hand(tmp_path: Path) -> None:
    prepared(tmp_path / "store")
    found = opened(tmp_path / "store")
    assert len(found) == 3
    assert found.offset.tolist() == [0, 2, 2, 4]
    assert found.lengths.tolist() == [2, 0, 2]
    assert found.time.tolist() == [0.5, 1.25, 2.0, 2.0]
    assert found.code.tolist() == [1, 2, 1, 1]
    assert found.value.tolist() == [1.0, 0.0, 0.0, -0.5]
    assert VOCABULARY.static_names == ("Age", "Age?", "SEX//F")
    assert found.static.tolist() == [[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    assert found.label.tolist()[::2] == [1.0, 0.0]
    assert np.isnan(found.label[1])
    assert found.subject_id.tolist() == [4, 4, 2**40]
    assert found.prediction_time.tolist() == [1578009600 * 10**6] * 3  # 2020-01-03
    assert found.numeric.tolist() == [False, True, False]
    assert [found.rows(split).tolist() for split in ("train", "tuning", "held_out")] == [[1], [2], [0]]
    assert found.header["unknown_codes"] == {"new drug": 2}
    assert found.header.unknown_static == {"EYES//blue": 1}
    assert found.header.static_names == VOCABULARY.static_names
    assert (found.vocabulary_hash, found.task) == (VOCABULARY.hash, TASK)


def test_dtypes_and_order_of_a_larger_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stays = random_stays(rng, [0, 400, 1, 37, 0], 12)
    codes = sorted({code for stay in stays for _, code, _ in stay})
    made = prepare_store(tmp_path / "store", windows(stays), vocabulary(*codes), TASK)
    for name, kind in store_module.ARRAYS.items():
        assert getattr(made, name).dtype == kind, name
    for row, stay in enumerate(stays):
        inside = slice(made.offset[row], made.offset[row + 1])
        assert made.time[inside].tolist() == [np.float32(hours) for hours, _, _ in stay]
        assert [codes[i - 1] for i in made.code[inside]] == [code for _, code, _ in stay]
        assert made.value[inside].tolist() == [np.float32(value) for _, _, value in stay]


def test_the_arrays_are_mapped_and_read_only(tmp_path: Path) -> None:
    store = prepared(tmp_path / "store")
    assert isinstance(store.time.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.time[0] = 1.0


def test_a_store_of_nothing_opens(tmp_path: Path) -> None:
    store = prepare_store(tmp_path / "store", windows([]), vocabulary("HR"), TASK)
    assert len(store) == 0
    assert store.rows("train").tolist() == store.lengths.tolist() == store.time.tolist() == []


def test_another_data_set_vocabulary_task_or_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store"
    prepared(path)
    other = TaskConfig(lookback_hours=24, max_observations=100, keep="earliest", stays_per_subject=2)
    with pytest.raises(StoreMismatch) as fault:
        open_store(path, dataset="e" * 64, vocabulary_hash="f" * 64, task=other)
    assert str(fault.value) == (
        f"{path}: was made for another state of the data set (dddddddddddd, now eeeeeeeeeeee); "
        f"vocabulary {VOCABULARY.hash[:12]}, not ffffffffffff; task lookback_hours 48.0, not 24.0; "
        "task max_observations 880, not 100; task keep latest, not earliest; "
        "task stays_per_subject all, not 2; prepare the store again"
    )
    again = pickle.loads(pickle.dumps(fault.value))
    assert (type(again), str(again)) == (StoreMismatch, str(fault.value))

    header = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps({**header, "schema": 99}))
    with pytest.raises(StoreMismatch, match="schema version 99"):
        opened(path)


def _cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: _cut_short(next(path.glob("arrays-*/time.npy"))),
        lambda path: next(path.glob("arrays-*/time.npy")).unlink(),
        lambda path: next(path.glob("arrays-*/time.npy")).write_bytes(b""),
        lambda path: np.save(next(path.glob("arrays-*/time.npy")), np.zeros(3, np.float32)),
        lambda path: np.save(next(path.glob("arrays-*/code.npy")), np.zeros(4, np.int64)),
        lambda path: shutil.rmtree(next(path.glob("arrays-*"))),
        lambda path: (path / "store.json").write_text("{"),
        lambda path: (path / "store.json").write_text('{"schema": 3}'),
    ],
    ids=[
        "short",
        "missing",
        "empty",
        "other length",
        "other type",
        "no arrays",
        "broken header",
        "bare header",
    ],
)
def test_a_damaged_store_is_one_fault(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "store"
    prepared(path)
    damage(path)
    with pytest.raises(InputFault, match=r"is a damaged store: .*; prepare the store again") as fault:
        opened(path)
    assert "\n" not in str(fault.value)
    assert prepared(path).time.tolist() == [0.5, 1.25, 2.0, 2.0]


def test_where_no_store_is_or_can_be(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="holds no triplet store"):
        opened(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputFault, match="holds no triplet store"):
        opened(tmp_path / "file")
    with pytest.raises(InputFault, match="cannot hold a store"):
        prepared(tmp_path / "file")


class Killed(BaseException):
    """The process is gone: from here on nothing of it runs."""


STEPS = [
    (store_module, "_save"),
    (os, "fsync"),
    (Path, "mkdir"),
    (Path, "replace"),
    (Path, "unlink"),
    (shutil, "rmtree"),
]


def _kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first `step` of all steps on the disk happen, and none after: also no clean-up."""
    done = 0

    def limited(real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if done >= step:
                done = 10**9
                raise Killed
            done += 1
            return real(*args, **kwargs)

        return run

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, limited(getattr(owner, name)))


def _content(store: TripletStore) -> list[list[float]]:
    return [getattr(store, name).tolist() for name in ("time", "code", "value", "offset", "subject_id")]


def test_a_kill_at_any_point_leaves_one_whole_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    newer: Windows = replace(windows([[(1.0, "HR", 70.0)], [(2.0, "HR", 60.0)]]), dataset=DATASET)
    old = _content(prepared(path))
    new = _content(prepare_store(tmp_path / "other", newer, VOCABULARY, TASK))
    outcomes = []
    for step in range(1000):
        prepared(path)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(step, patch)
            try:
                prepare_store(path, newer, VOCABULARY, TASK)
            except Killed:
                pass
            else:
                break
        outcomes.append(_content(opened(path)))
        assert outcomes[-1] in (old, new), f"killed at step {step}"
    assert len(outcomes) > 2 * len(store_module.ARRAYS), "too few points were tried"
    turn = outcomes.index(new)
    assert outcomes == [old] * turn + [new] * (len(outcomes) - turn)
    assert turn > 2 * len(store_module.ARRAYS)
    # What the kills left is gone: one folder of arrays, one header.
    assert sorted(entry.name.split("-")[0] for entry in path.iterdir()) == [".lock", "arrays", "store.json"]


def test_a_kill_of_the_first_prepare_leaves_no_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with pytest.MonkeyPatch.context() as patch:
        _kill_at(9, patch)
        with pytest.raises(Killed):
            prepared(path)
    with pytest.raises(InputFault, match="holds no triplet store"):
        opened(path)
    assert len(prepared(path)) == 3


def test_a_fault_while_preparing_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store"
    prepared(path)
    before = sorted(path.rglob("*"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "_save", full)
    with pytest.raises(InputFault, match="cannot hold a store: No space left on device"):
        prepared(path)
    assert sorted(path.rglob("*")) == before
    assert len(opened(path)) == 3


def test_a_store_replaced_while_it_is_opened_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    prepared(path)
    read_header = store_module.read_header
    calls = 0

    def overtaken(where: Path) -> StoreHeader:
        nonlocal calls
        header = read_header(where)
        calls += 1
        if calls == 1:
            with monkeypatch.context() as patch:
                patch.setattr(store_module, "read_header", read_header)
                newer = replace(windows([[(1.0, "HR", 70.0)]]), dataset=DATASET)
                prepare_store(where, newer, VOCABULARY, TASK)
        return header

    monkeypatch.setattr(store_module, "read_header", overtaken)
    assert opened(path).time.tolist() == [1.0]
