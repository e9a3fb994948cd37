"""The figures of `hymate data check`: counted by hand, against a plain reference, and in any pieces."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.data.checks.event_files import ParquetFile, read_pieces
from hymate.data.checks.findings import Finding
from hymate.data.checks.run import CheckReport, check_dataset
from hymate.data.checks.summary import SplitLabels
from hymate.data.checks.tallies import RunningTotal, quantiles_of
from hymate.data.meds import SPLITS
from tests.hymate.data.meds_folders import (
    CODES,
    DATA,
    DAY,
    FIRST_SUBJECT,
    HOUR,
    NOON,
    NOW,
    Event,
    edit,
    events,
    store,
    write_good,
)


def check(root: Path, **options: object) -> CheckReport:
    return check_dataset(root, now=NOW, **options)  # type: ignore[arg-type]


def test_the_figures_of_a_small_data_set(tmp_path: Path) -> None:
    summary = check(write_good(tmp_path / "good")).summary
    assert (summary.name, summary.files, summary.subjects) == ("good", 3, 6)
    assert (summary.events, summary.static) == (36, 6)
    assert (summary.first, summary.last) == ("2020-02-29 12:00", "2020-03-01 18:00")
    assert summary.splits == dict.fromkeys(SPLITS, 2)
    assert summary.listed_without_events == 0
    assert summary.stays == 6
    assert list(summary.tasks) == ["days", "death"]
    for split in SPLITS:
        assert summary.tasks["death"].splits[split] == SplitLabels(2, 2, positives=1, rate=0.5)
        values = summary.tasks["days"].splits[split].values
        assert values is not None
        assert (values.min, values.median, values.max) == (2.5, 2.5, 7.0)
    codes = {code.code: code for code in summary.codes}
    assert next(iter(codes)) == "HR"  # as many subjects as others, more events
    heart = codes["HR"]
    assert (heart.unit, heart.events, heart.numbers, heart.subjects) == ("bpm", 12, 12, 6)
    assert heart.values is not None
    assert (heart.values.p1, heart.values.median, heart.values.p99) == (80.0, 80.0, 90.0)
    # Known by the prediction time: the discharge comes 6 hours after it.
    assert (heart.missing_subjects, heart.missing_stays) == (0.0, 0.0)
    assert codes["HOSPITAL_DISCHARGE//HOME"].missing_subjects == 0.5
    assert codes["HOSPITAL_DISCHARGE//HOME"].missing_stays == 1.0
    assert codes["GENDER//F"].missing_stays == 0.0  # a row without a time is known from the start
    assert codes["GENDER//F"].values is None


def test_subjects_outside_the_splits_are_counted_apart(tmp_path: Path) -> None:
    root = write_good(tmp_path / "good")
    edit(
        root / "metadata/subject_splits.parquet",
        lambda table: pl.concat([table[1:], pl.DataFrame({"subject_id": [5], "split": ["train"]})]),
    )
    summary = check(root).summary
    assert summary.splits == {"train": 1, "tuning": 2, "held_out": 2, "none": 1}
    assert summary.listed_without_events == 1
    assert summary.tasks["death"].splits["none"].stays == 1


def test_only_the_codes_asked_for_are_listed(tmp_path: Path) -> None:
    root = write_good(tmp_path / "good")
    assert len(check(root, shown_codes=2).summary.codes) == 2
    assert check(root, shown_codes=2).summary.codes_in_events == 6
    assert len(check(root, shown_codes=0).summary.codes) == 6


def test_codes_without_a_description_are_counted_all_the_same(tmp_path: Path) -> None:
    root = write_good(tmp_path / "good")
    (root / CODES).unlink()
    assert {code.unit for code in check(root).summary.codes} == {None}


@given(
    values=st.lists(st.integers(-9999, 9999), min_size=1, max_size=60),
    pieces=st.integers(1, 5),
)
@settings(max_examples=50, deadline=None)
def test_quantiles_from_merged_counts_are_those_of_the_values(values: list[int], pieces: int) -> None:
    total = RunningTotal(["code", "value"], [pl.col("count").sum()])
    for part in np.array_split(np.array(values, dtype=np.float32), pieces):
        frame = pl.DataFrame({"code": "x", "value": part}, schema={"code": pl.String, "value": pl.Float32})
        total.add(frame.group_by("code", "value").agg(count=pl.len()))
    merged = total.total()
    assert merged is not None
    row = quantiles_of(merged).row(0, named=True)
    for name, share in (("p1", 0.01), ("median", 0.5), ("p99", 0.99)):
        assert row[name] == np.quantile(values, share, method="inverted_cdf")


def test_running_totals_are_merged_while_they_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hymate.data.checks.tallies._MERGE_ROWS", 10)
    total = RunningTotal(["key"], [pl.col("count").sum()])
    for _ in range(50):
        total.add(pl.DataFrame({"key": range(4), "count": [1] * 4}))
        assert total._waiting <= 14
    merged = total.total()
    assert merged is not None
    assert merged.sort("key").rows() == [(key, 50) for key in range(4)]


def random_events(rng: np.random.Generator, subjects: int, tidy: bool) -> list[Event]:
    """Whole records in order when `tidy`; else with rows exchanged, doubled and spoilt."""
    rows: list[Event] = []
    for subject in range(subjects):
        count = int(rng.integers(0, 9))
        minutes = np.sort(rng.integers(0, 60 * 24, count))
        if rng.random() < 0.5:
            rows.append((subject, None, ("AGE", "C0")[rng.integers(2)], float(rng.integers(1, 90))))
        rows += [
            (subject, NOON + dt.timedelta(minutes=int(minute)), f"C{rng.integers(3)}", float(rng.normal()))
            for minute in minutes
        ]
    if not tidy and len(rows) > 2:
        for _ in range(3):
            i, j = rng.integers(0, len(rows), 2)
            rows[i], rows[j] = rows[j], rows[i]
        rows.append((*rows[0][:3], float("nan")))
    return rows


@given(seed=st.integers(0, 2**32 - 1), piece=st.integers(1, 12), row_group=st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_pieces_are_whole_runs_in_the_files_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, piece: int, row_group: int
) -> None:
    rng = np.random.default_rng(seed)
    table = events(*random_events(rng, int(rng.integers(0, 6)), tidy=False))
    path = tmp_path_factory.mktemp("pieces") / "0.parquet"
    store(path, table, row_group)
    pieces = list(read_pieces(ParquetFile.open(path, path.parent), piece))
    assert all(len(each) for each in pieces)
    if not len(table):
        assert pieces == []
        return
    whole = pl.concat(pieces)
    assert whole["row"].to_list() == list(range(len(table)))
    assert whole.drop("row").cast({"code": pl.String}).equals(table)
    for each in pieces:  # only one subject of many rows makes a piece larger than asked for
        assert (each["subject_id"] != each["subject_id"][0]).sum() <= piece
    for before, after in pairwise(pieces):
        assert before["subject_id"][-1] != after["subject_id"][0]


@pytest.mark.parametrize("tidy", [True, False])
def test_the_report_does_not_depend_on_the_pieces(tmp_path: Path, tidy: bool) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rows = events(*random_events(rng, 7, tidy))
        root = tmp_path / str(seed)
        store(root / DATA, rows)
        keys = pl.DataFrame({"subject_id": range(7), "prediction_time": [NOON + 12 * HOUR] * 7})
        store(root / "labels/x/0.parquet", keys.with_columns(boolean_value=pl.col("subject_id") > 3))
        whole = check(root)
        for piece in (1, 2, 5):
            parts = check(root, piece_rows=piece)
            if tidy:
                assert parts == whole
            else:
                assert _of(parts, "subject-scattered") == _of(whole, "subject-scattered") != []
                assert _of(parts, "non-finite") == _of(whole, "non-finite") != []
                assert parts.summary.events == whole.summary.events


def _of(report: CheckReport, rule: str) -> list[Finding]:
    return [found for found in report.findings if found.rule.name == rule]


@pytest.mark.parametrize("seed", range(3))
def test_missing_rates_against_a_plain_count(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = random_events(rng, 12, tidy=True)
    store(tmp_path / DATA, events(*rows))
    subjects = sorted({row[0] for row in rows})
    times = {subject: NOON + int(rng.integers(-5, 30)) * HOUR for subject in subjects}
    keys = {"subject_id": subjects, "prediction_time": [times[subject] for subject in subjects]}
    store(tmp_path / "labels/x/0.parquet", pl.DataFrame(keys).with_columns(boolean_value=True))
    for code in check(tmp_path, piece_rows=5).summary.codes:
        mine = [row for row in rows if row[2] == code.code]
        assert code.events == len(mine)
        assert code.subjects == len({row[0] for row in mine})
        assert code.missing_subjects == pytest.approx(1 - len({row[0] for row in mine}) / len(subjects))
        known = {row[0] for row in mine if row[1] is None or row[1] <= times[row[0]]}
        assert code.missing_stays == pytest.approx(1 - len(known) / len(subjects))
        assert code.values is not None
        drawn = sorted(row[3] for row in mine if row[3] is not None)
        assert code.values.median == pytest.approx(drawn[(len(drawn) - 1) // 2], rel=5e-3)
        assert (code.values.min, code.values.max) == pytest.approx((drawn[0], drawn[-1]), rel=1e-6)


def test_a_subject_of_two_files_is_one_subject(tmp_path: Path) -> None:
    root = write_good(tmp_path / "good")
    for subject in range(FIRST_SUBJECT, FIRST_SUBJECT + 6):
        extra = root / "data" / "again" / f"{subject}.parquet"
        store(extra, events((subject, NOON + 2 * DAY, "HR", 1.0)))
    report = check(root)
    # The record begins with the earliest event of both files: no prediction comes before it.
    assert {found.rule.name for found in report.errors} == {"subject-in-two-files"}
    summary = report.summary
    assert summary.subjects == 6
    assert {code.code: code.subjects for code in summary.codes}["HR"] == 6


def test_predictions_of_one_day_later_see_more(tmp_path: Path) -> None:
    root = write_good(tmp_path / "good")
    for path in root.glob("labels/*/*.parquet"):
        edit(path, lambda table: table.with_columns(pl.col("prediction_time") + DAY))
    codes = {code.code: code for code in check(root).summary.codes}
    assert codes["HOSPITAL_DISCHARGE//HOME"].missing_stays == 0.5
