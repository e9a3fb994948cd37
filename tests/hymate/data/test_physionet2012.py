"""PhysioNet 2012: every rule of the protocol on hand-written records."""

from __future__ import annotations

import datetime as dt
import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hymate.data.challenge_codes import PARAMETERS
from hymate.data.meds import SPLITS, MedsDataset
from hymate.data.physionet2012 import ADMISSION, TASKS
from hymate.errors import InputFault
from tests.hymate.data.challenge import OUTCOMES_HEADER, ordinary, record, write_set
from tests.hymate.data.prepared_challenge import prepare


def events_of(
    tmp_path: Path, text: str, record_id: int = 1
) -> tuple[list[tuple[object, ...]], dict[str, Any]]:
    """(minute or None, code, value) of one record among ordinary ones, and the summary."""
    write_set(tmp_path / "raw", "a", {record_id: text, **ordinary(100, 2)})
    summary = prepare(tmp_path / "raw", tmp_path / "out")
    events = MedsDataset.open(tmp_path / "out" / "all").events().filter(pl.col("subject_id") == 1)
    minute = (pl.col("time") - ADMISSION).dt.total_minutes()
    return events.select(minute, "code", "numeric_value").rows(), summary


def test_one_record_becomes_these_events(tmp_path: Path) -> None:
    text = record(1, "00:07,HR,80\n00:07,pH,7.25\n01:00,HR,79\n48:00,Weight,81.5\n", gender=1, weight="82")
    text = text.replace("00:00,Height,-1", "00:00,Height,175.3")
    rows, _ = events_of(tmp_path, text)
    assert sorted(rows[:4], key=str) == [
        (None, "AGE", 54.0),
        (None, "GENDER//M", None),
        (None, "HEIGHT", pytest.approx(175.3, abs=1e-4)),
        (None, "ICU_TYPE//medical", None),
    ]
    assert rows[4:] == [
        (0, "Weight", 82.0),
        (7, "HR", 80.0),
        (7, "pH", 7.25),
        (60, "HR", 79.0),
        (2880, "Weight", 81.5),
    ]


def test_negative_values_are_missing(tmp_path: Path) -> None:
    rows, summary = events_of(tmp_path, record(1, "00:07,Temp,-17.8\n01:00,HR,0\n02:00,HR,70\n", gender=-1))
    codes = [code for _, code, _ in rows]
    assert sorted(codes) == ["AGE", "HR", "HR", "ICU_TYPE//medical"]
    # Three records have neither height nor admission weight.
    assert summary["left_out"]["static values missing (negative)"] == 3 + 1
    assert summary["left_out"]["dynamic values missing (negative)"] == 3 + 1


def test_exact_duplicates_are_kept_once(tmp_path: Path) -> None:
    rows, summary = events_of(
        tmp_path, record(1, "00:07,HR,80\n00:07,HR,80.0\n00:07,HR,81\n00:08,HR,80\n00:07,HR,80\n")
    )
    assert [row for row in rows if row[1] == "HR"] == [(7, "HR", 80.0), (7, "HR", 81.0), (8, "HR", 80.0)]
    assert summary["left_out"]["exact duplicates"] == 2


@pytest.mark.parametrize(("rows", "kept"), [("", False), ("00:10,,1.8\n", False), ("00:10,HR,80\n", True)])
def test_stays_with_at_most_five_rows_are_left_out(tmp_path: Path, rows: str, kept: bool) -> None:
    """The five descriptors count, the RecordID row and rows without a parameter do not."""
    events, summary = events_of(tmp_path, record(1, rows))
    assert bool(events) == kept
    assert summary["total"]["stays"] == 2 + kept
    assert summary["left_out"]["stays with fewer than 6 rows"] == 1 - kept
    assert summary["left_out"]["rows without a parameter"] == rows.count(",,")
    labels = MedsDataset.open(tmp_path / "out" / "all").labels("in_hospital_mortality")
    assert (1 in labels["subject_id"]) == kept


def test_observations_after_48_hours_are_left_out(tmp_path: Path) -> None:
    rows, summary = events_of(tmp_path, record(1, "48:00,HR,80\n48:01,HR,90\n"))
    assert [row for row in rows if row[1] == "HR"] == [(2880, "HR", 80.0)]
    assert summary["left_out"]["observations after 48 h"] == 1


def test_labels(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_set(raw, "a", ordinary(1, 4))
    rows = "1,0,1,5,-1,0\n2,-1,-1,-1,3,1\n3,9,-1,0,40,0\n4,9,8,12,-1,0\n999,1,1,1,1,1\n"
    (raw / "Outcomes-a.txt").write_text(OUTCOMES_HEADER + rows)
    prepare(raw, tmp_path / "out")
    dataset = MedsDataset.open(tmp_path / "out" / "all")
    assert dataset.tasks() == sorted(TASKS)
    at = ADMISSION + dt.timedelta(hours=48)
    assert dataset.labels("in_hospital_mortality").rows() == [(1, at, 0), (2, at, 1), (3, at, 0), (4, at, 0)]
    assert dataset.labels("length_of_stay").rows() == [(1, at, 5.0), (3, at, 0.0), (4, at, 12.0)]
    assert dataset.labels("saps_i").rows() == [(1, at, 0.0), (3, at, 9.0), (4, at, 9.0)]
    assert dataset.labels("sofa").rows() == [(1, at, 1.0), (4, at, 8.0)]
    assert dataset.labels("survival").rows() == [(2, at, 3.0), (3, at, 40.0)]
    assert dataset.labels("death_recorded").rows() == [(1, at, 0), (2, at, 1), (3, at, 1), (4, at, 0)]


def test_codes_carry_units(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "a", ordinary(1))
    prepare(tmp_path / "raw", tmp_path / "out")
    units = MedsDataset.open(tmp_path / "out" / "all").units()
    assert {"HR": "bpm", "Temp": "°C", "pH": "pH", "AGE": "years", "HEIGHT": "cm"}.items() <= units.items()
    assert set(PARAMETERS) <= set(units)
    assert len(PARAMETERS) == 37


def test_sites_by_icu_type_and_by_set(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_set(raw, "a", {n: record(n, "00:01,HR,80\n", icu=n) for n in (1, 2, 3, 4)})
    write_set(raw, "c", {n: record(n, "00:01,HR,80\n", icu=3) for n in (5, 6)}, packed=".zip")
    by_type = prepare(raw, tmp_path / "types", site_by="icu_type")
    assert {name: figures["stays"] for name, figures in by_type["sites"].items()} == {
        "cardiac_surgery": 1,
        "coronary_care": 1,
        "medical": 3,
        "surgical": 1,
    }
    assert MedsDataset.open(tmp_path / "types" / "coronary_care").events()[
        "subject_id"
    ].unique().to_list() == [1]
    by_set = prepare(raw, tmp_path / "sets", site_by="set")
    assert {name: figures["stays"] for name, figures in by_set["sites"].items()} == {"set_a": 4, "set_c": 2}
    assert by_set["sets"] == ["set-a", "set-c"]
    assert MedsDataset.open(tmp_path / "sets" / "set_c").name == "set_c"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("packed", [".tar.gz", ".tgz", ".zip"])
def test_packing_line_ends_and_order_on_disk_change_nothing(tmp_path: Path, packed: str) -> None:
    files = ordinary(1, 30)
    write_set(tmp_path / "plain", "b", files)
    reversed_files = {n: text.replace("\n", "\r\n") for n, text in reversed(files.items())}
    write_set(tmp_path / "other", "b", reversed_files, packed=packed)
    assert prepare(tmp_path / "plain", tmp_path / "1") == prepare(tmp_path / "other", tmp_path / "2")
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")


def test_splits_are_stratified_by_death_and_seeded(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "a", ordinary(1, 200))
    summary = prepare(tmp_path / "raw", tmp_path / "0")
    assert summary["total"]["splits"] == {"train": 140, "tuning": 20, "held_out": 40}
    dataset = MedsDataset.open(tmp_path / "0" / "all")
    splits = dataset.splits()  # refuses a subject in two splits
    deaths = splits.join(dataset.labels("in_hospital_mortality"), on="subject_id").group_by("split")
    assert dict(deaths.agg(pl.col("label").sum()).rows()) == {"train": 70, "tuning": 10, "held_out": 20}
    prepare(tmp_path / "raw", tmp_path / "1", seed=1)
    assert not splits.equals(MedsDataset.open(tmp_path / "1" / "all").splits())
    for split in SPLITS:
        shard = pl.read_parquet(dataset.root / "data" / split / "0.parquet")["subject_id"].unique().sort()
        assert shard.to_list() == splits.filter(pl.col("split") == split)["subject_id"].to_list()


def test_a_record_without_icu_type_has_no_site(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "a", {**ordinary(1), 3: record(3, "00:01,HR,80\n00:02,HR,80\n", icu=-1)})
    with pytest.raises(InputFault, match=r"3.txt: has no ICUType; choose the sites by set"):
        prepare(tmp_path / "raw", tmp_path / "out", site_by="icu_type")
    assert prepare(tmp_path / "raw", tmp_path / "out", site_by="set")["total"]["stays"] == 12


def test_files_that_macos_puts_into_archives_are_no_records(tmp_path: Path) -> None:
    source = write_set(tmp_path / "raw", "a", ordinary(1, 3), packed=".zip")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("__MACOSX/set-a/._1.txt", b"\0\1")
    assert prepare(tmp_path / "raw", tmp_path / "out")["total"]["stays"] == 3


def test_the_summary_is_beside_the_sites(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "a", ordinary(1))
    summary = prepare(tmp_path / "raw", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert summary["sites"]["all"] == {
        "stays": 12,
        "deaths": 6,
        "observations": 24,
        "median_observations": 2.0,
        "splits": {"train": 8, "tuning": 2, "held_out": 2},
    }
