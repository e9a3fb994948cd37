"""Times and origins of a hospital's own tables: offsets, clocks, numbers, outcomes that have begun."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.statistics import code_statistics
from hymate.data.store import prepare_store
from hymate.data.tabular.clock import ORIGIN
from hymate.data.tasks import cut_windows
from hymate.data.vocabulary import build_vocabulary
from tests.hymate.data.hospital_tables import (
    EVENTS,
    LABEL_ROLES,
    LABELS,
    ONE_LABEL,
    fault,
    made,
    rows_of,
)


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
