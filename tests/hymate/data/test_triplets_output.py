"""Parquet tables, the data set's folder, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from hymate.cli import app
from hymate.command import run_command
from hymate.data.meds import MedsDataset
from hymate.data.tabular.triplets import TripletSource, prepare_triplets
from hymate.errors import InputFault
from tests.hymate.data.hospital_tables import (
    EVENTS,
    GOOD,
    LABEL_ROLES,
    LABELS,
    ROLES,
    rows_of,
    source,
)


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
