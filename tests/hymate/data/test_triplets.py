"""A hospital's own tables become MEDS: what is read how, and every fault by file, row, column and value."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from meds.schema import DataSchema

from hymate.cli import app
from hymate.command import run_command
from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.meds import MedsDataset
from hymate.data.statistics import code_statistics
from hymate.data.store import prepare_store
from hymate.data.tabular.clock import ORIGIN
from hymate.data.tabular.reading import parse_columns
from hymate.data.tabular.triplets import DUPLICATES, UNKNOWN, UNLABELLED, TripletSource, prepare_triplets
from hymate.data.tasks import cut_windows
from hymate.data.vocabulary import build_vocabulary
from hymate.errors import InputFault

EVENTS = "subject,time,code,value\n"
LABELS = "subject,prediction_time,label\n"
ROLES = {name: name for name in EVENTS.strip().split(",")}
LABEL_ROLES = {name: name for name in LABELS.strip().split(",")}

ONE_LABEL = LABELS + "1,2024-03-02 00:00,1\n"


def source(folder: Path, events: str | bytes, labels: str = ONE_LABEL, **options: Any) -> TripletSource:
    folder.mkdir(exist_ok=True)
    content = events.encode() if isinstance(events, str) else events
    (folder / "events.csv").write_bytes(content)
    (folder / "labels.csv").write_text(labels)
    for name in ("static", "splits", "units"):
        if name in options:
            (folder / f"{name}.csv").write_text(options[name])
            options[name] = folder / f"{name}.csv"
    defaults: dict[str, Any] = {"columns": ROLES, "label_columns": LABEL_ROLES}
    return TripletSource(
        events=folder / "events.csv", labels=folder / "labels.csv", **{**defaults, **options}
    )


def made(
    tmp_path: Path, events: str | bytes, labels: str = ONE_LABEL, **options: Any
) -> tuple[MedsDataset, dict[str, Any]]:
    out = tmp_path / "site"
    figures = prepare_triplets(source(tmp_path / "raw", events, labels, **options), out, task="outcome")
    return MedsDataset.open(out), figures


def rows_of(dataset: MedsDataset) -> list[tuple[Any, ...]]:
    return dataset.events().drop_nulls("time").rows()


def fault(tmp_path: Path, events: str | bytes, labels: str = ONE_LABEL, **options: Any) -> str:
    """The one line of the fault; nothing may be left behind."""
    with pytest.raises(InputFault) as raised:
        made(tmp_path, events, labels, **options)
    assert {entry.name for entry in tmp_path.iterdir()} == {"raw"}
    message = str(raised.value)
    assert "\n" not in message
    return message.replace(str(tmp_path / "raw") + "/", "")


def test_events_are_sorted_and_ties_keep_their_order(tmp_path: Path) -> None:
    text = (
        EVENTS + "2,2024-03-01 10:00,HR,80\n1,2024-03-01 12:00,K,4.1\n"
        "1,2024-03-01 10:00,pH,7.4\n1,2024-03-01 10:00,HR,90\n1,2024-03-01 10:00,HR,85.5\n"
    )
    dataset, figures = made(tmp_path, text)
    at = datetime(2024, 3, 1, 10)
    assert rows_of(dataset) == [
        (1, at, "pH", pytest.approx(7.4)),
        (1, at, "HR", 90.0),
        (1, at, "HR", 85.5),
        (1, datetime(2024, 3, 1, 12), "K", pytest.approx(4.1)),
        (2, at, "HR", 80.0),
    ]
    for path in dataset.data_files():
        DataSchema.validate(pq.read_table(path))
    assert dataset.labels("outcome").rows() == [(1, datetime(2024, 3, 2), 1.0)]
    assert figures["subjects"] == 2
    assert figures["codes"] == 3
    assert "mapping" not in figures
    assert {entry.name for entry in tmp_path.iterdir()} == {"raw", "site"}


def test_exact_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    """The same number written in two ways is the same; another value, time or code is not."""
    row = "1,2024-03-01 10:00,HR,80\n"
    text = EVENTS + row + row + "1,2024-03-01T10:00:00,HR,80.0\n1,2024-03-01 10:00,HR,81\n" + row
    dataset, figures = made(tmp_path, text)
    assert [value for *_, value in rows_of(dataset)] == [80.0, 81.0]
    assert figures["left_out"][DUPLICATES] == 3


def test_quotes_commas_a_byte_order_mark_and_empty_cells(tmp_path: Path) -> None:
    text = (
        "\ufeff" + EVENTS + '1,2024-03-01 10:00,"Blood, arterial ""a""",7.4\r\n'
        ' 1 ,"2024-03-01 10:01", Visit ,\r\n1,2024-03-01 10:02,Note,"two\nlines"\r\n'
    )
    dataset, _ = made(tmp_path, text.encode("utf-8"))
    assert [(code, value) for *_, code, value in rows_of(dataset)] == [
        ('Blood, arterial "a"', pytest.approx(7.4)),
        ("Visit", None),
        ("Note//two\nlines", None),
    ]


def test_text_values_become_codes(tmp_path: Path) -> None:
    text = EVENTS + "1,2024-03-01,Rhythm,AF\n1,2024-03-01,Rhythm,sinus\n1,2024-03-01,Rhythm,\n"
    dataset, figures = made(tmp_path, text)
    assert [code for _, _, code, _ in rows_of(dataset)] == ["Rhythm//AF", "Rhythm//sinus", "Rhythm"]
    assert figures["codes"] == 3


def test_characteristics(tmp_path: Path) -> None:
    dataset, figures = made(
        tmp_path,
        EVENTS + "1,2024-03-01,HR,80\n",
        static="pid,AGE,SEX\n1,67,F\n2,,M\n",
        static_subject="pid",
        labels=ONE_LABEL + "2,2024-03-02 00:00,0\n",
    )
    static = dataset.events().filter(pl.col("time").is_null())
    assert static.select("subject_id", "code", "numeric_value").rows() == [
        (1, "AGE", 67.0),
        (1, "SEX//F", None),
        (2, "SEX//M", None),
    ]
    # Subject 2 has no event at all; its label is kept, and the window's least number decides.
    assert figures["subjects_without_events"] == 1
    windows = cut_windows(dataset, TaskConfig(name="outcome", min_observations=0))
    assert windows.stays["observations"].to_list() == [1, 0]
    assert cut_windows(dataset, TaskConfig(name="outcome")).left_out["fewer than 1 observations"] == 1


def test_column_names_separators_and_words_for_missing(tmp_path: Path) -> None:
    dataset, figures = made(
        tmp_path,
        "at;pid;result;item;ward\n01.03.2024 10:30;1;NA;HR;x\n01.03.2024 11:30;1;80;HR;x\n",
        labels="pid;when;dead\n1;02.03.2024 00:00;yes\n1;03.03.2024 00:00;-\n",
        columns=parse_columns("subject=pid, time=at,code=item,value=result", "--columns", list(ROLES), []),
        label_columns={"subject": "pid", "prediction_time": "when", "label": "dead"},
        separator=";",
        time_format="%d.%m.%Y %H:%M",
        missing=("NA", "-"),
    )
    assert [(time.hour, value) for _, time, _, value in rows_of(dataset)] == [(10, None), (11, 80.0)]
    assert dataset.labels("outcome").rows() == [(1, datetime(2024, 3, 2), 1.0)]
    assert figures["left_out"][UNLABELLED] == 1


def test_a_length_of_stay_is_a_float_label(tmp_path: Path) -> None:
    labels = LABELS + "1,2024-03-02 00:00,3.5\n1,2024-03-03 00:00,1\n"
    dataset, figures = made(tmp_path, EVENTS + "1,2024-03-01,HR,80\n", labels=labels)
    assert dataset.labels("outcome")["label"].to_list() == [3.5, 1.0]
    assert "positive" not in figures


# --- time -----------------------------------------------------------------------------------------------


def times(tmp_path: Path, *written: str, **options: Any) -> list[datetime]:
    text = EVENTS + "".join(f"1,{time},HR,{number}\n" for number, time in enumerate(written))
    labels = options.pop("labels", ONE_LABEL)
    dataset, _ = made(tmp_path, text, labels=labels, **options)
    ordered = sorted(rows_of(dataset), key=lambda row: row[3])
    return [time for _, time, _, _ in ordered]


def test_the_night_of_25_hours_with_offsets(tmp_path: Path) -> None:
    """In Berlin the hour from 2 to 3 comes twice on 27 October 2024: the offsets keep the two apart."""
    got = times(
        tmp_path,
        "2024-10-27T02:30:00+02:00",
        "2024-10-27T02:30:00+01:00",
        "2024-10-27 01:15:00Z",
        "2024-10-26 21:15:00.5-0400",
        "2024-10-27T06:00+05:45",
        labels=LABELS + "1,2024-10-28T00:00:00+01:00,1\n",
    )
    assert got == [
        datetime(2024, 10, 27, 0, 30),
        datetime(2024, 10, 27, 1, 30),
        datetime(2024, 10, 27, 1, 15),
        datetime(2024, 10, 27, 1, 15, 0, 500_000),
        datetime(2024, 10, 27, 0, 15),
    ]


def test_a_clock_without_offsets_is_taken_as_written(tmp_path: Path) -> None:
    """The hour from 2 to 3 that Berlin skips on 31 March 2024 is a time like any other; so is a leap day."""
    got = times(tmp_path, "2024-03-31 01:59", "2024-03-31 02:30", "2024-02-29", "2024-02-29T23:59:59.25")
    assert got == [
        datetime(2024, 3, 31, 1, 59),
        datetime(2024, 3, 31, 2, 30),
        datetime(2024, 2, 29),
        datetime(2024, 2, 29, 23, 59, 59, 250_000),
    ]


def test_offsets_in_one_file_and_none_in_the_other_are_refused(tmp_path: Path) -> None:
    row = EVENTS + "1,2024-10-27T02:30:00+02:00,HR,80\n"
    message = fault(tmp_path, row)
    assert "labels.csv: row 2, column 'prediction_time': value '2024-03-02 00:00' has no zone" in message
    assert "unlike row 2 of events.csv" in message
    message = fault(tmp_path, EVENTS + "1,2024-10-27 02:30,HR,80\n1,2024-10-27 02:30Z,HR,80\n")
    assert "events.csv: row 3, column 'time': value '2024-10-27 02:30Z' has a zone" in message


@pytest.mark.parametrize(
    ("unit", "number", "expected"),
    [
        ("minutes", "90", timedelta(minutes=90)),
        ("hours", "1.5", timedelta(minutes=90)),
        ("days", "-3", timedelta(days=-3)),
        ("days", "59", timedelta(days=59)),  # over the leap day of 2000
        ("hours", "0", timedelta()),
    ],
)
def test_numbers_count_from_each_subjects_origin(
    tmp_path: Path, unit: str, number: str, expected: timedelta
) -> None:
    dataset, _ = made(
        tmp_path,
        EVENTS + f"1,{number},HR,80\n2,{number},HR,80\n",
        labels=LABELS + "1,100,1\n",
        time_unit=unit,
    )
    assert [time for _, time, _, _ in rows_of(dataset)] == [ORIGIN + expected] * 2
    assert dataset.labels("outcome")["prediction_time"][0] == ORIGIN + timedelta(**{unit: 100})


WEIGHT_VISITS = EVENTS + "".join(
    f"{child},{day},{code},{value}\n"
    for child in ("P-01", "P-02", "P-03")
    for day, code, value in [(0, "BMI", 31.5), (0, "Visit", "first"), (180, "BMI", 30.9), (720, "BMI", 29.0)]
)


def test_weight_loss_in_days_with_an_index_date_before_the_outcome(tmp_path: Path) -> None:
    """The paediatric shape: visits in days, index date strictly before the outcome window; to a store."""
    labels = "subject,index,loss,window_start\nP-01,720,1,721\nP-02,720,0,720.5\nP-03,719,0,900\n"
    roles = {
        "subject": "subject",
        "prediction_time": "index",
        "label": "loss",
        "outcome_start": "window_start",
    }
    dataset, figures = made(tmp_path, WEIGHT_VISITS, labels=labels, label_columns=roles, time_unit="days")
    assert figures["labels"] == 3
    task = TaskConfig(name="outcome", lookback_hours=24 * 720)
    windows = cut_windows(dataset, task)
    # The visit of day 720 is input of an index date of day 720, and not of one the day before.
    assert windows.stays["observations"].to_list() == [4, 4, 3]
    statistics = {"site": code_statistics(windows, dataset.units())}
    vocabulary = build_vocabulary(statistics, VocabularyConfig(min_count=1))
    store = prepare_store(tmp_path / "store", windows, vocabulary, task)
    assert store.lengths.tolist() == [4, 4, 3]
    assert np.isclose(store.time[:4], [0, 0, 24 * 180, 24 * 720]).all()


@pytest.mark.parametrize("start", ["720", "719.5", "0"])
def test_an_outcome_that_has_begun_is_refused(tmp_path: Path, start: str) -> None:
    roles = {**LABEL_ROLES, "outcome_start": "start"}
    labels = f"subject,prediction_time,label,start\nP-01,720,1,721\nP-02,720,0,{start}\n"
    message = fault(tmp_path, WEIGHT_VISITS, labels=labels, label_columns=roles, time_unit="days")
    assert message == (
        f"labels.csv: row 3, column 'start': value '{start}' (start of the outcome window) is not after the "
        "prediction time '720'; predict strictly before the outcome window begins"
    )
    empty = "subject,prediction_time,label,start\nP-01,720,1,\n"
    message = fault(tmp_path, WEIGHT_VISITS, labels=empty, label_columns=roles, time_unit="days")
    assert "row 2, column 'start': empty (start of the outcome window) is not known" in message


# --- subjects -------------------------------------------------------------------------------------------


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


# --- faults ---------------------------------------------------------------------------------------------

GOOD = "1,2024-03-01 10:00,HR,80\n"

EVENT_FAULTS: list[tuple[str, str]] = [
    ("", "events.csv: is empty"),
    (EVENTS, "events.csv: holds no row"),
    ("subject,time,code\n1,2024-03-01,HR\n", "events.csv: has no column 'value' for the value"),
    (EVENTS.replace(",", ";") + "1;2024-03-01;HR;80\n", "is not separated by ','"),
    (EVENTS + GOOD + "1,2024-02-30,HR,80\n", "row 3, column 'time': value '2024-02-30' is no time"),
    (
        EVENTS + GOOD + "1,2023-02-29 10:00,HR,80\n",
        "row 3, column 'time': value '2023-02-29 10:00' is no time",
    ),
    (EVENTS + "1,01/03/2024,HR,80\n", "row 2, column 'time': value '01/03/2024' is no time"),
    (EVENTS + "1,2024-03-01 24:00,HR,80\n", "row 2, column 'time': value '2024-03-01 24:00' is no time"),
    (EVENTS + "1,90,HR,80\n", "value '90' is no time; write YYYY-MM-DD"),
    (EVENTS + GOOD + "1,,HR,80\n", "row 3, column 'time': empty is not allowed here"),
    (EVENTS + GOOD + ",2024-03-01,HR,80\n", "row 3, column 'subject': empty is not allowed here"),
    (EVENTS + GOOD + "1,2024-03-01,  ,80\n", "row 3, column 'code': empty is not allowed here"),
    (EVENTS + GOOD + "1,2024-03-01,HR,inf\n", "row 3, column 'value': value 'inf' is no finite number"),
    (EVENTS + GOOD + "1,2024-03-01,HR,NaN\n", "row 3, column 'value': value 'NaN' is no finite number"),
    (EVENTS + GOOD + "1,2024-03-01,HR,1e39\n", "row 3, column 'value': value '1e39' is no finite number"),
    (EVENTS + '1,2024-03-01,Temp,"37,5"\n', "row 2, column 'value': value '37,5' has a decimal comma"),
    (
        EVENTS + GOOD + "1,2024-03-01,HR,<40\n",
        "row 3, column 'value': value '<40' is text, where code 'HR' has",
    ),
    (EVENTS + f"1,2024-03-01,Note,{'long ' * 30}\n", "is free text, no category"),
    (EVENTS + GOOD + "1,2024-03-01,HR,80,90\n", "events.csv: cannot be read as CSV"),
    (EVENTS + GOOD + "1,2024-03-01\n", "events.csv: row 3 has 2 cells where the header has 4"),
    (EVENTS + '1,2024-03-01,"a\nb",\n1,2024-03-01,HR', "row 3 has 3 cells where the header has 4; export it"),
]


@pytest.mark.parametrize(("text", "message"), EVENT_FAULTS)
def test_faults_of_events(tmp_path: Path, text: str, message: str) -> None:
    assert message in fault(tmp_path, text)


def test_a_wrong_separator_is_guessed(tmp_path: Path) -> None:
    for separator, shown in ((";", "';'"), ("\t", r"'\t'"), ("|", "'|'")):
        message = fault(tmp_path, EVENTS.replace(",", separator) + "x\n")
        assert message.endswith(f"give --separator {shown}")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    text = (EVENTS + "Müller,2024-03-01,HR,80\n").encode("latin-1")
    assert "events.csv: is no text in UTF-8; save it as UTF-8" in fault(tmp_path, text)


LABEL_FAULTS: list[tuple[str, str]] = [
    (LABELS, "labels.csv: holds no row"),
    (
        LABELS + "1,2024-03-02,maybe\n",
        "row 2, column 'label': value 'maybe' is neither yes or no (1 or 0) nor",
    ),
    (LABELS + "1,2024-03-02,1\n1,2024-03-02,0\n", "row 2, column 'subject': value '1' has two labels"),
    (LABELS + "1,2024-03-02,\n", "labels.csv: no label is left"),
    (LABELS + "1,,1\n", "row 2, column 'prediction_time': empty is not allowed here"),
    (LABELS + "1,2024-03-02,inf\n", "row 2, column 'label': value 'inf' is no finite number"),
    ("subject,label\n1,1\n", "labels.csv: has no column 'prediction_time'"),
]


@pytest.mark.parametrize(("labels", "message"), LABEL_FAULTS)
def test_faults_of_labels(tmp_path: Path, labels: str, message: str) -> None:
    assert message in fault(tmp_path, EVENTS + GOOD, labels=labels)


STATIC_FAULTS: list[tuple[str, str]] = [
    ("pid,AGE\n1,60\n", "static.csv: has no column 'subject' for the subject"),
    ("subject,AGE\n1,60\n1,61\n", "static.csv: row 3, column 'subject': value '1' is there twice"),
    ("subject,AGE\n1,60\n2,old\n", "static.csv: row 3, column 'AGE': value 'old' is text"),
    ("subject,AGE\n,60\n", "static.csv: row 2, column 'subject': empty is not allowed here"),
]


@pytest.mark.parametrize(("static", "message"), STATIC_FAULTS)
def test_faults_of_characteristics(tmp_path: Path, static: str, message: str) -> None:
    assert message in fault(tmp_path, EVENTS + GOOD, static=static)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("subject", "'subject' is not ROLE=COLUMN"),
        ("when=at", "'when' is no role; roles: subject, time, code, value"),
        ("time=a,time=b", "the time is given twice"),
    ],
)
def test_wrong_columns(given: str, message: str) -> None:
    with pytest.raises(InputFault, match=message):
        parse_columns(given, "--columns", list(ROLES), [])


def test_numbers_that_cannot_be_times(tmp_path: Path) -> None:
    for written in ("first", "nan", "1e9"):
        message = fault(
            tmp_path, EVENTS + f"1,{written},HR,80\n", labels=LABELS + "1,1,1\n", time_unit="days"
        )
        assert f"row 2, column 'time': value '{written}' is no number of days" in message


# --- Parquet, and the folder ----------------------------------------------------------------------------


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    at = [datetime(2024, 3, 1, 10), datetime(2024, 3, 1, 11)]
    table = pl.DataFrame({"subject": [5, 3], "time": at, "code": ["HR", "HR"], "value": [80.0, None]})
    table.with_columns(pl.col("time").dt.replace_time_zone("Europe/Berlin")).write_parquet(
        tmp_path / "e.parquet"
    )
    labels = pl.DataFrame({"subject": [5], "prediction_time": at[1:], "label": [True]})
    labels.with_columns(pl.col("prediction_time").dt.replace_time_zone("UTC")).write_parquet(
        tmp_path / "l.parquet"
    )
    given = TripletSource(tmp_path / "e.parquet", tmp_path / "l.parquet", ROLES, LABEL_ROLES)
    prepare_triplets(given, tmp_path / "site", task="outcome")
    dataset = MedsDataset.open(tmp_path / "site")
    assert rows_of(dataset) == [
        (3, datetime(2024, 3, 1, 10), "HR", None),
        (5, datetime(2024, 3, 1, 9), "HR", 80.0),
    ]
    table.with_columns(value=pl.Series([80.0, float("nan")])).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(
        InputFault, match=r"e\.parquet: row 2, column 'value': value 'nan' is no finite number"
    ):
        prepare_triplets(given, tmp_path / "other", task="outcome")
    (tmp_path / "e.parquet").write_text("no parquet")
    with pytest.raises(InputFault, match="is not a readable parquet file"):
        prepare_triplets(given, tmp_path / "other", task="outcome")


def test_numbers_as_times_in_parquet_need_a_unit(tmp_path: Path) -> None:
    table = pl.DataFrame({"subject": [1], "time": [90], "code": ["HR"], "value": [80]})
    table.write_parquet(tmp_path / "e.parquet")
    (tmp_path / "l.csv").write_text(LABELS + "1,100,1\n")
    given = TripletSource(tmp_path / "e.parquet", tmp_path / "l.csv", ROLES, LABEL_ROLES)
    with pytest.raises(InputFault, match="value '90' is a number; say what it counts: --time-unit"):
        prepare_triplets(given, tmp_path / "site", task="outcome")


def test_the_same_files_give_the_same_bytes_in_any_order_of_rows(tmp_path: Path) -> None:
    rows = [
        f"{subject},2024-03-01 {hour:02}:00,HR,{60 + hour}\n" for subject in range(9) for hour in range(5)
    ]
    labels = LABELS + "".join(f"{subject},2024-03-02,{subject % 2}\n" for subject in range(9))
    for name, ordered in (("1", rows), ("2", rows[::-1])):
        given = source(tmp_path / "raw", EVENTS + "".join(ordered), labels)
        prepare_triplets(given, tmp_path / name / "site", task="outcome")
    contents = [
        {
            path.name + str(path.parent.name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.parquet")
        }
        for name in "12"
    ]
    assert contents[0] == contents[1]


def break_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hymate.data.tabular.triplets.write_mapping", killed)


def test_broken_off_it_leaves_nothing_or_the_older_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = source(tmp_path / "raw", EVENTS + "a,2024-03-01,HR,70\n", LABELS + "a,2024-03-02,1\n")
    with monkeypatch.context() as patch:
        break_off(patch)
        with pytest.raises(KeyboardInterrupt):
            prepare_triplets(given, tmp_path / "site", task="outcome")
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]
    prepare_triplets(given, tmp_path / "site", task="outcome")
    with monkeypatch.context() as patch:
        break_off(patch)
        with pytest.raises(KeyboardInterrupt):
            prepare_triplets(given, tmp_path / "site", task="another", force=True)
    assert MedsDataset.open(tmp_path / "site").tasks() == ["outcome"]


def test_what_is_replaced(tmp_path: Path) -> None:
    given = source(tmp_path / "raw", EVENTS + GOOD)
    prepare_triplets(given, tmp_path / "site", task="outcome")
    with pytest.raises(InputFault, match="exists already; give another --out, or --force"):
        prepare_triplets(given, tmp_path / "site", task="outcome")
    prepare_triplets(given, tmp_path / "site", task="second", force=True)
    assert MedsDataset.open(tmp_path / "site").tasks() == ["second"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputFault, match="is no data set of this command"):
        prepare_triplets(given, tmp_path / "mine", task="outcome", force=True)
    with pytest.raises(InputFault, match="cannot name a label set"):
        prepare_triplets(given, tmp_path / "other", task="../up")


Command = Callable[..., int]


@pytest.fixture
def triplets(tmp_path: Path) -> Command:
    source(tmp_path / "raw", EVENTS + "a,2024-03-01,HR,70\n" * 2, LABELS + "a,2024-03-02,1\n")
    files = ["--events", tmp_path / "raw" / "events.csv", "--labels", tmp_path / "raw" / "labels.csv"]
    fixed = ["data", "triplets", *files, "--out", tmp_path / "site", "--task", "death"]
    return lambda *more: run_command(app, "hymate", [str(argument) for argument in (*fixed, *more)])


def test_the_command(triplets: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert triplets() == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "labels of death: 1, 1 positive" in printed.out
    assert "left out: 1 exact duplicates" in printed.out
    assert f"who is who (private, stays here): {tmp_path / 'site.subjects.csv'}" in printed.out
    assert triplets("--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["events"] == 1


def test_the_command_with_wrong_options(triplets: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in (
        (["--separator", "::"], "is not one character"),
        (["--columns", "subject=pid"], "has no column 'pid' for the subject"),
        (["--time-unit", "days"], "value '2024-03-01' is no number of days"),
        (["--time-format", "%H"], "'%H' is no format of times (Invalid format string"),
        (["--time-format", "%d.%m.%Y"], "value '2024-03-01' is not written as %d.%m.%Y"),
    ):
        assert triplets(*more) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.err.count("\n") == 1
