"""Who is who in a hospital's own tables; splits and units beside them."""

from __future__ import annotations

import stat
from pathlib import Path

import polars as pl
import pytest

from hymate.data.meds import MedsDataset
from hymate.data.tabular.triplets import UNKNOWN, prepare_triplets
from hymate.errors import InputFault
from tests.hymate.data.hospital_tables import (
    EVENTS,
    LABELS,
    ONE_LABEL,
    ROLES,
    fault,
    made,
    source,
)


def test_names_are_numbered_and_who_is_who_stays_private(tmp_path: Path) -> None:
    dataset, figures = made(
        tmp_path,
        EVENTS + "007,2024-03-01,HR,70\nM. Müller,2024-03-01,HR,80\n",
        labels=LABELS + "007,2024-03-02,1\n",
        static="subject,AGE\nM. Müller,50\n",
    )
    mapping = tmp_path / "site.subjects.csv"
    assert figures["mapping"] == str(mapping)
    assert mapping.read_text() == "subject,subject_id\n007,1\nM. Müller,2\n"
    assert stat.S_IMODE(mapping.stat().st_mode) == 0o600
    assert dataset.events().drop_nulls("time")["subject_id"].to_list() == [1, 2]
    for path in dataset.root.rglob("*"):
        assert path.is_dir() or b"007" not in path.read_bytes()
        assert path.is_dir() or "Müller".encode() not in path.read_bytes()


def test_numbers_given_once_stay(tmp_path: Path) -> None:
    made(tmp_path, EVENTS + "b,2024-03-01,HR,70\n", labels=LABELS + "b,2024-03-02,1\n")
    again = source(
        tmp_path / "raw", EVENTS + "a,2024-03-01,HR,60\nb,2024-03-01,HR,70\n", LABELS + "a,2024-03-02,0\n"
    )
    prepare_triplets(again, tmp_path / "site", task="outcome", force=True)
    assert (tmp_path / "site.subjects.csv").read_text() == "subject,subject_id\nb,1\na,2\n"
    events = MedsDataset.open(tmp_path / "site").events()
    assert dict(zip(events["subject_id"], events["numeric_value"], strict=True)) == {1: 70.0, 2: 60.0}
    (tmp_path / "site.subjects.csv").write_text("subject,subject_id\nb,1\na,1\n")
    with pytest.raises(
        InputFault, match=r"site\.subjects\.csv: row 2, column 'subject_id': value '1' is no number"
    ):
        prepare_triplets(again, tmp_path / "site", task="outcome", force=True)


def test_whole_numbers_stay_as_they_are(tmp_path: Path) -> None:
    dataset, _ = made(
        tmp_path,
        EVENTS + "-5,2024-03-01,HR,1\n900000000000000001,2024-03-01,HR,2\n",
        LABELS + "-5,2024-03-02,1\n",
    )
    assert dataset.events()["subject_id"].to_list() == [-5, 900000000000000001]
    assert not (tmp_path / "site.subjects.csv").exists()


def test_a_label_of_a_stranger(tmp_path: Path) -> None:
    labels = ONE_LABEL + "99,2024-03-02 00:00,0\n"
    text = EVENTS + "1,2024-03-01,HR,80\n"
    message = fault(tmp_path, text, labels=labels)
    assert "labels.csv: row 3, column 'subject': value '99' has neither events nor characteristics" in message
    dataset, figures = made(tmp_path, text, labels=labels, skip_unknown=True)
    assert len(dataset.labels("outcome")) == 1
    assert figures["left_out"][UNKNOWN] == 1
    assert 99 not in dataset.splits()["subject_id"]


def test_only_strangers_are_an_error_even_when_told_to_skip(tmp_path: Path) -> None:
    message = fault(tmp_path, EVENTS + "2,2024-03-01,HR,80\n", skip_unknown=True)
    assert "labels.csv: no label is left" in message


# --- splits and units -----------------------------------------------------------------------------------


def test_splits_are_drawn_by_subject_and_stratified(tmp_path: Path) -> None:
    text = EVENTS + "".join(f"{subject},2024-03-01,HR,80\n" for subject in range(200))
    # Subjects 100 and above have no label; each of the others has two, one positive in every second.
    labels = LABELS + "".join(
        f"{subject},2024-03-0{day},{subject % 2 * (day - 2)}\n" for subject in range(100) for day in (2, 3)
    )
    dataset, figures = made(tmp_path, text, labels=labels)
    assert figures["splits"] == {"train": 140, "tuning": 20, "held_out": 40}
    joined = dataset.splits().join(
        dataset.labels("outcome").group_by("subject_id").agg(pl.col("label").max()), on="subject_id"
    )
    counts = joined.group_by("split").agg(pl.len(), pl.col("label").sum())
    assert {split: row for split, *row in counts.rows()} == {
        "train": [70, 35.0],
        "tuning": [10, 5.0],
        "held_out": [20, 10.0],
    }


def test_splits_from_a_file(tmp_path: Path) -> None:
    text = EVENTS + "1,2024-03-01,HR,80\n2,2024-03-01,HR,80\n"
    given = "subject,split\n2,held_out\n1,train\n3,tuning\n"
    dataset, _ = made(tmp_path, text, splits=given)
    assert dataset.splits().rows() == [(1, "train"), (2, "held_out")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("subject,split\n1,train\n", "splits.csv: holds no split for 1 of 2 subjects"),
        ("subject,split\n1,train\n2,test\n", "splits.csv: row 3, column 'split': value 'test' is no split"),
        (
            "subject,split\n1,train\n2,train\n1,train\n",
            "splits.csv: row 4, column 'subject': value '1' is there",
        ),
        ("subject,set\n1,train\n", "splits.csv: has no column 'split'"),
    ],
)
def test_wrong_splits(tmp_path: Path, given: str, message: str) -> None:
    text = EVENTS + "1,2024-03-01,HR,80\n2,2024-03-01,HR,80\n"
    assert message in fault(tmp_path, text, splits=given)


def test_units(tmp_path: Path) -> None:
    rows = "subject,time,code,value,unit\n1,2024-03-01,K,4,mmol/L\n1,2024-03-02,K,5,\n1,2024-03-01,Sex,F,\n"
    dataset, _ = made(tmp_path, rows, columns={**ROLES, "unit": "unit"})
    assert dataset.units() == {"K": "mmol/L"}
    message = fault_of_units(tmp_path / "two", rows + "1,2024-03-03,K,39,mg/L\n")
    assert message.startswith("events.csv: row 5, column 'unit': value 'mg/L' is another unit of code 'K'")
    assert "than 'mmol/L' in row 2" in message
    (tmp_path / "file").mkdir()
    dataset, _ = made(
        tmp_path / "file", EVENTS + "1,2024-03-01,K,4\n", units="code,unit\nK,mmol/L\nNa,mmol/L\n"
    )
    assert dataset.units() == {"K": "mmol/L"}


def fault_of_units(folder: Path, rows: str) -> str:
    folder.mkdir()
    return fault(folder, rows, columns={**ROLES, "unit": "unit"})


def test_units_twice(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("code,unit\nK,mmol/L\nK,mg/L\n")
    rows = "subject,time,code,value,unit\n1,2024-03-01,K,4,mmol/L\n"
    given = source(tmp_path / "raw", rows, columns={**ROLES, "unit": "unit"}, units="code,unit\nK,mmol/L\n")
    with pytest.raises(InputFault, match="give them once"):
        prepare_triplets(given, tmp_path / "site", task="outcome")
    given = source(tmp_path / "raw", EVENTS + "1,2024-03-01,K,4\n", units="code,unit\nK,mmol/L\nK,mg/L\n")
    with pytest.raises(InputFault, match=r"units\.csv: row 3, column 'code': value 'K' is there twice"):
        prepare_triplets(given, tmp_path / "site", task="outcome")
