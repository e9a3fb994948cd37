"""A fingerprint follows the rows, not the folder or the clock; while files look the same none is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from meds.schema import code_metadata_filepath, data_subdirectory, subject_splits_filepath

from hymate.data import fingerprint as fingerprint_module
from hymate.data import meds_names
from hymate.data.fingerprint import fingerprint, look
from hymate.data.meds import MedsDataset, write_dataset
from hymate.errors import InputFault

DATA = "data/train/0.parquet"
LABELS = "labels/death/train.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    events = pl.DataFrame(
        {
            "subject_id": [1, 2],
            "time": [datetime(2020, 1, 1)] * 2,
            "code": ["HR", "HR"],
            "numeric_value": [80.0, 81.0],
        }
    )
    label = {
        "subject_id": [1, 2],
        "prediction_time": [datetime(2020, 1, 2)] * 2,
        "boolean_value": [True, False],
    }
    write_dataset(
        tmp_path / "site",
        name="site",
        events=events,
        splits=pl.DataFrame({"subject_id": [1, 2], "split": ["train", "train"]}),
        labels={"death": pl.DataFrame(label), "other": pl.DataFrame(label)},
        codes=pl.DataFrame({"code": ["HR"], "unit": ["bpm"]}),
    )
    return tmp_path / "site"


def taken(root: Path) -> str:
    return fingerprint(root, "death", root.parent / "memory.json")


def test_every_file_read_for_a_task_is_covered(root: Path) -> None:
    files = {str(path.relative_to(root)) for path in fingerprint_module._files(root, "death")}
    assert files == {DATA, LABELS, "metadata/codes.parquet", "metadata/subject_splits.parquet"}
    assert {root / DATA} == set(MedsDataset.open(root).data_files())


@pytest.mark.parametrize("file", [DATA, LABELS, "metadata/codes.parquet", "metadata/subject_splits.parquet"])
@pytest.mark.parametrize("same_size", [True, False])
def test_a_change_is_seen(root: Path, file: str, same_size: bool) -> None:
    before, path = taken(root), root / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content) if same_size else bytes(content) + b"x")
    after = taken(root)
    assert after != before
    assert taken(root) == after


def test_a_change_that_forges_the_time_of_modification_is_seen(root: Path) -> None:
    before, path = taken(root), root / DATA
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert taken(root) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "data/train/1.parquet").write_bytes((root / DATA).read_bytes()),
        lambda root: (root / DATA).rename(root / "data/train/1.parquet"),
        lambda root: (root / LABELS).unlink(),
    ],
    ids=["added", "renamed", "removed"],
)
def test_files_that_come_and_go_are_seen(root: Path, change: Callable[[Path], object]) -> None:
    before = taken(root)
    change(root)
    assert taken(root) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / DATA).touch(),
        lambda root: (root / "metadata/dataset.json").write_text("{}"),
        lambda root: (root / "labels/other/train.parquet").unlink(),
        lambda root: (root / "data/_notes.parquet").write_text("no data"),
        lambda root: (root.parent / "memory.json").unlink(),
        lambda root: (root.parent / "memory.json").write_text("{"),
        lambda root: (root.parent / "memory.json").write_text('{"look": 1, "content": 2}'),
    ],
    ids=["touched", "its name", "another task", "no data", "forgotten", "broken memory", "odd memory"],
)
def test_what_makes_no_difference(root: Path, change: Callable[[Path], object]) -> None:
    before = taken(root)
    change(root)
    assert taken(root) == before


def test_a_copy_has_the_same_fingerprint(root: Path, tmp_path: Path) -> None:
    before = taken(root)
    copy = tmp_path / "another disk" / "site"
    shutil.copytree(root, copy, copy_function=shutil.copyfile)
    assert look(copy, "death") != look(root, "death")
    assert fingerprint(copy, "death", tmp_path / "other.json") == before
    shutil.rmtree(root)
    shutil.move(copy, root)
    assert taken(root) == before


def test_files_that_look_the_same_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = taken(root)

    def read(*_: object) -> str:
        raise AssertionError("a file was read")

    monkeypatch.setattr(fingerprint_module, "_content", read)
    assert taken(root) == before
    (root / DATA).touch()
    with pytest.raises(AssertionError, match="a file was read"):
        taken(root)


def test_a_change_while_reading_is_one_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = fingerprint_module._content

    def late(where: Path, task: str) -> str:
        found = content(where, task)
        (where / LABELS).unlink()
        return found

    monkeypatch.setattr(fingerprint_module, "_content", late)
    with pytest.raises(InputFault, match="changes while it is read"):
        taken(root)
    assert not (root.parent / "memory.json").exists()


def test_a_data_set_that_is_gone_is_one_fault(root: Path) -> None:
    shutil.rmtree(root / "data")
    with pytest.raises(InputFault, match="no MEDS data set is here any more; put the data set back"):
        taken(root)


def test_memory_that_cannot_be_written_costs_time_only(root: Path) -> None:
    (root.parent / "file").write_text("")
    assert fingerprint(root, "death", root.parent / "file" / "memory.json") == taken(root)


def test_the_names_are_those_of_meds() -> None:
    assert data_subdirectory == meds_names.DATA
    assert Path(subject_splits_filepath).parent == Path(meds_names.METADATA)
    assert Path(code_metadata_filepath).parent == Path(meds_names.METADATA)
