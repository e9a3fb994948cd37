"""Every fault of a hospital's own tables by file, row, column and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from hymate.data.tabular.reading import parse_columns
from hymate.errors import InputFault
from tests.hymate.data.hospital_tables import (
    EVENTS,
    GOOD,
    LABELS,
    ROLES,
    fault,
)

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
