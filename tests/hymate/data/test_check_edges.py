"""Empty, tiny, broken and oddly placed data sets under `hymate data check`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from hymate.data.checks.findings import Finding
from hymate.data.checks.run import CheckReport, check_dataset
from hymate.data.meds import write_dataset
from hymate.errors import InputFault
from tests.hymate.data.meds_folders import (
    BREAKS,
    CODES,
    DATA,
    DEATHS,
    NOON,
    NOW,
    SPLITS,
    A,
    B,
    Event,
    events,
    record,
    store,
    write_good,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_good(tmp_path / "good")


def check(root: Path, **options: object) -> CheckReport:
    return check_dataset(root, now=NOW, **options)  # type: ignore[arg-type]


def names(report: CheckReport) -> set[str]:
    return {found.rule.name for found in report.findings}


def only(report: CheckReport, rule: str) -> Finding:
    (found,) = (found for found in report.findings if found.rule.name == rule)
    return found


def test_unknown_files_and_folders_are_no_data(root: Path) -> None:
    (root / "data" / "train" / ".0.parquet.crc").write_text("x")
    (root / "data" / "train" / "_SUCCESS").write_text("")
    (root / "labels" / "notes.txt").write_text("by hand")
    assert check(root).findings == ()


def test_times_that_a_clock_shows_twice_or_never(root: Path) -> None:
    """MEDS' times have no zone: the hour lost and the hour repeated by summer time are times like others."""
    times = [
        dt.datetime(2020, 2, 29, 23, 59),
        dt.datetime(2020, 3, 29, 2, 30),  # skipped in Berlin
        dt.datetime(2020, 10, 25, 2, 30),  # there twice in Berlin
        dt.datetime(2020, 10, 25, 2, 30),
    ]
    rows = [(B, time, "HR", 80.0 + i) for i, time in enumerate(times)]
    store(root / DATA, events(*record(A), *rows))
    assert check(root).findings == ()


def test_an_empty_file_beside_full_ones(root: Path) -> None:
    store(root / "data/train/1.parquet", events())
    report = check(root)
    assert report.findings == ()
    assert report.summary.files == 4


def test_no_events_at_all(tmp_path: Path) -> None:
    store(tmp_path / DATA, events())
    report = check(tmp_path)
    assert names(report) == {"no-events", "codes-missing", "splits-missing", "labels-missing"}
    assert (report.summary.subjects, report.summary.events, report.summary.codes) == (0, 0, ())
    assert report.summary.first is None


@pytest.mark.parametrize("rows", [[(1, NOON, "HR", 80.0)], [(1, None, "AGE", 80.0)]], ids=["one", "static"])
def test_one_row_is_a_data_set(tmp_path: Path, rows: list[Event]) -> None:
    write_dataset(
        tmp_path / "one",
        name="one",
        events=events(*rows),
        splits=pl.DataFrame({"subject_id": [1], "split": ["train"]}),
        labels={},
        codes=pl.DataFrame({"code": [rows[0][2]]}),
    )
    report = check(tmp_path / "one")
    assert names(report) == {"labels-missing"}
    (code,) = report.summary.codes
    assert code.values is not None
    assert (code.values.p1, code.values.median, code.values.p99) == (80.0, 80.0, 80.0)
    assert (code.missing_subjects, code.missing_stays) == (0.0, None)


def test_what_cannot_be_checked_is_an_input_fault(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="no such folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(InputFault, match="is not a MEDS data set"):
        check(tmp_path)
    with pytest.raises(InputFault, match="no such folder"):
        check(root, labels=tmp_path / "nowhere")
    with pytest.raises(InputFault, match=r"0.parquet lies directly in it"):
        check(root, labels=root / "data" / "train")


@pytest.mark.parametrize("file", [DATA, DEATHS, SPLITS, CODES])
def test_a_broken_file_is_named(root: Path, file: str) -> None:
    content = (root / file).read_bytes()
    for broken in (b"", content[:50], content[: len(content) // 2] + bytes(len(content) // 2)):
        (root / file).write_bytes(broken)
        with pytest.raises(InputFault, match="is not a readable parquet file") as caught:
            check(root)
        assert caught.value.where == str(root / file)


def test_a_row_group_that_cannot_be_read_is_named(root: Path) -> None:
    """The footer is whole, the pages are not."""
    content = bytearray((root / DATA).read_bytes())
    content[4:60] = bytes(56)
    (root / DATA).write_bytes(content)
    with pytest.raises(InputFault, match="row group 0 cannot be read") as caught:
        check(root)
    assert "\n" not in str(caught.value)


def test_labels_from_another_folder(root: Path, tmp_path: Path) -> None:
    (root / "labels").rename(tmp_path / "elsewhere")
    assert names(check(root)) == {"labels-missing"}
    assert check(root, labels=tmp_path / "elsewhere").findings == ()
    BREAKS["label-null"](_with_labels(tmp_path))
    found = only(check(root, labels=tmp_path / "elsewhere"), "label-null")
    assert found.file == "elsewhere/death/train.parquet"


def _with_labels(tmp_path: Path) -> Path:
    """A folder in which the labels have their usual place, for the functions of BREAKS."""
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "labels").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "view"
