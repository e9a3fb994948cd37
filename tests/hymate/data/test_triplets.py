"""A hospital's own tables become MEDS: what is read how."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from meds.schema import DataSchema

from hymate.config import TaskConfig
from hymate.data.tabular.reading import parse_columns
from hymate.data.tabular.triplets import DUPLICATES, UNLABELLED
from hymate.data.tasks import cut_windows
from tests.hymate.data.hospital_tables import (
    EVENTS,
    LABELS,
    ONE_LABEL,
    ROLES,
    made,
    rows_of,
)


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
