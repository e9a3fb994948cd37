"""Every rule of `hymate data check`: a data set that keeps it, one that breaks it, and what is said then."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from hymate.data.checks.findings import Example, Finding
from hymate.data.checks.rules import RULES, Severity
from hymate.data.checks.run import CheckReport, check_dataset
from hymate.data.meds import MedsDataset
from tests.hymate.data.meds_folders import (
    BREAKS,
    CODES,
    COMPANIONS,
    DATA,
    DAY,
    DEATHS,
    HOUR,
    NOON,
    NOW,
    ROW_GROUP,
    SPLITS,
    A,
    B,
    append,
    edit,
    events,
    record,
    store,
    write_good,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_good(tmp_path / "good")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CheckReport]:
    """The report on a good data set in which one rule was broken."""

    @functools.cache
    def report(rule: str) -> CheckReport:
        root = write_good(tmp_path_factory.mktemp("broken") / "good")
        BREAKS[rule](root)
        return check(root)

    return report


def check(root: Path, **options: object) -> CheckReport:
    return check_dataset(root, now=NOW, **options)  # type: ignore[arg-type]


def names(report: CheckReport) -> set[str]:
    return {found.rule.name for found in report.findings}


def only(report: CheckReport, rule: str) -> Finding:
    (found,) = (found for found in report.findings if found.rule.name == rule)
    return found


def test_every_rule_is_broken_by_a_test() -> None:
    assert set(BREAKS) == set(RULES)


def test_a_good_data_set_breaks_no_rule(root: Path) -> None:
    assert check(root).findings == ()


@pytest.mark.parametrize("rule", list(RULES))
def test_the_rule_is_reported_and_nothing_else(broken: Callable[[str], CheckReport], rule: str) -> None:
    report = broken(rule)
    assert rule in names(report)
    assert names(report) - {rule} == COMPANIONS.get(rule, set())
    graver = report.errors if RULES[rule].severity is Severity.ERROR else report.warnings
    assert rule in {found.rule.name for found in graver}
    for found in report.findings:
        assert not re.search(r"\{\w+\}", found.what + found.rule.remedy)
        assert not Path(found.file).is_absolute()


@pytest.mark.parametrize(
    ("rule", "file", "example"),
    [
        ("null", DATA, Example(4, 1, A, None)),
        ("subject-scattered", DATA, Example(12, 3, A, None)),
        ("subject-in-two-files", "data/train/1.parquet", Example(0, 0, A, f"also in {DATA}")),
        (
            "time-order",
            DATA,
            Example(4, 1, A, "2020-02-29 12:30:00 after 2020-02-29 13:00:00"),
        ),
        (
            "duplicate-row",
            DATA,
            Example(12, 3, B, "HOSPITAL_DISCHARGE//HOME at 2020-03-01 18:00:00"),
        ),
        ("non-finite", DATA, Example(4, 1, A, "Temp = NaN")),
        (
            "before-birth",
            DATA,
            Example(0, 0, A, "HR at 2020-02-29 12:00:00, birth at 2020-02-29 13:00:00"),
        ),
        (
            "after-death",
            DATA,
            Example(6, 1, A, "HR at 2020-03-02 04:00:00, death at 2020-03-01 18:00:00"),
        ),
        ("future", DATA, Example(12, 3, B, "HR at 2021-01-03 00:00:00")),
        ("code-unlisted", CODES, Example(value="Lactate (1 events)")),
        ("code-units-differ", CODES, Example(4, 0, None, "HR: 1/s, bpm")),
        ("split-unknown", SPLITS, Example(0, 0, A, "validation")),
        ("subject-in-two-splits", SPLITS, Example(0, 0, A, "train, held_out")),
        ("subject-without-split", SPLITS, Example(subject=A)),
        ("split-folder", DATA, Example(subject=A, value="listed as tuning")),
        ("label-null", DEATHS, Example(0, 0, A, None)),
        ("label-non-finite", "labels/days/train.parquet", Example(0, 0, A, "inf")),
        ("label-repeated", DEATHS, Example(2, 0, A, "predicted at 2020-03-01 12:00:00")),
        ("label-without-data", DEATHS, Example(2, 0, 1, "predicted at 2020-03-01 12:00:00")),
        ("prediction-before-record", DEATHS, Example(0, 0, A, "predicted at 2020-02-29 11:00:00")),
        ("one-class", "labels/death", Example(value="all 2 are true")),
        ("clock-shifted", "data", Example(value="100 % of the events")),
        ("metadata-fields", "metadata/dataset.json", Example(value="3 is not of type 'string'")),
    ],
)
def test_file_row_group_and_value_are_named(
    broken: Callable[[str], CheckReport], rule: str, file: str, example: Example
) -> None:
    found = next(found for found in broken(rule).findings if found.rule.name == rule and found.file == file)
    assert found.examples[0] == example


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("column-missing", "column code is missing"),
        ("column-type", "column numeric_value is int64, MEDS wants float"),
        ("column-encoding", "column code is large_string where MEDS says string"),
        ("column-extra", "column score is not part of MEDS' LabelSchema"),
        ("label-kind", "holds both boolean_value and float_value"),
        ("label-column-empty", "column integer_value holds no value at all (ACES writes such)"),
        ("clock-placeholder", "events on 1970-01-01"),
        ("clock-shifted", "most events lie in the future"),
        ("task-without-stays", "task death has no stay in train"),
        ("prediction-after-record", "more than 30 days after"),
    ],
)
def test_what_is_said(broken: Callable[[str], CheckReport], rule: str, what: str) -> None:
    assert what in only(broken(rule), rule).what


def test_three_occurrences_are_shown_and_all_are_counted(root: Path) -> None:
    append(root / DATA, *[(B, NOON + (31 + hour) * HOUR, "HR", float("inf")) for hour in range(7)])
    found = only(check(root), "non-finite")
    assert found.count == 7
    assert [example.row for example in found.examples] == [12, 13, 14]


def test_the_first_three_of_all_pieces_are_shown(root: Path) -> None:
    rows = [(B + subject, NOON, "HR", float("nan")) for subject in range(100, 105)]
    store(root / "data/extra/0.parquet", events(*rows))
    found = only(check(root, piece_rows=1), "non-finite")
    assert found.count == 5
    assert [example.row for example in found.examples] == [0, 1, 2]


def test_every_file_has_its_own_finding(root: Path) -> None:
    for split in ("train", "held_out"):
        path = root / "data" / split / "0.parquet"
        edit(path, lambda table: table.with_columns(numeric_value=pl.lit(float("nan"), pl.Float32)))
    found = [found for found in check(root).findings if found.rule.name == "non-finite"]
    assert [(each.file, each.count) for each in found] == [
        ("data/held_out/0.parquet", 12),
        ("data/train/0.parquet", 12),
    ]


def test_a_number_too_large_for_float32_is_not_finite(root: Path) -> None:
    edit(root / DATA, lambda table: table.with_columns(numeric_value=pl.lit(1e300, pl.Float64)))
    report = check(root)
    assert only(report, "non-finite").count == 12
    assert "column numeric_value is double" in only(report, "column-encoding").what


def test_duplicates_differ_in_no_column(root: Path) -> None:
    """A second column that differs (an order number) makes two rows of what looks like a copy."""
    rows = [*record(A), *record(B), record(B)[-1]]
    store(root / DATA, events(*rows).with_columns(hadm_id=pl.Series(range(13))))
    assert check(root).findings == ()
    store(root / DATA, events(*rows).with_columns(hadm_id=pl.lit(7), text_value=pl.lit("x")))
    assert only(check(root), "duplicate-row").count == 1


def test_a_few_events_in_the_future_are_errors_a_shifted_clock_is_a_warning(root: Path) -> None:
    before = NOON - 365 * DAY
    report = check_dataset(root, now=before)
    assert names(report) == {"clock-shifted"}
    assert report.errors == ()
    assert names(check_dataset(root, now=NOON + 40 * HOUR)) == set()
    # Within a day: clocks and time zones differ.
    assert names(check_dataset(root, now=NOON + 7 * HOUR)) == set()
    assert names(check_dataset(root, now=NOON + 5 * HOUR)) == {"future"}


def test_a_clock_before_1970(root: Path) -> None:
    for path in [*root.glob("data/*/*.parquet"), *root.glob("labels/*/*.parquet")]:
        edit(path, lambda table: table.with_columns(pl.col(pl.Datetime).dt.offset_by("-80y")))
    assert "before 1970" in only(check(root), "clock-shifted").what


def test_a_death_known_by_its_day_lasts_that_day(root: Path) -> None:
    died = dt.datetime(2020, 3, 1)
    rows = [*record(A)[:-1], (A, died, "MEDS_DEATH", None), (A, died + 23 * HOUR, "HR", 1.0), *record(B)]
    store(root / DATA, events(*rows))
    assert check(root).findings == ()
    rows.insert(7, (A, died + 24 * HOUR, "HR", 1.0))
    store(root / DATA, events(*rows))
    assert only(check(root), "after-death").count == 1


def test_a_subject_without_times_has_nothing_to_predict_from(root: Path) -> None:
    store(root / DATA, events(record(A)[0], *record(B)))
    report = check(root)
    assert names(report) == {"prediction-before-record"}
    assert [found.file for found in report.errors] == ["labels/days/train.parquet", DEATHS]


@pytest.mark.parametrize(
    ("file", "column"),
    [(DATA, "subject_id"), (DEATHS, "prediction_time"), (SPLITS, "split"), (CODES, "code")],
)
def test_a_null_is_reported_wherever_a_value_is_needed(root: Path, file: str, column: str) -> None:
    table = pl.read_parquet(root / file)
    last = pl.int_range(pl.len()) == pl.len() - 1
    store(root / file, table.with_columns(pl.when(~last).then(pl.col(column)).alias(column)))
    found = only(check(root), "null")
    assert (found.file, found.what) == (file, f"column {column} is empty (null)")
    row = len(table) - 1
    assert [(each.row, each.row_group) for each in found.examples] == [(row, row // ROW_GROUP)]


def test_a_row_without_time_after_others_is_out_of_order(root: Path) -> None:
    store(root / DATA, events(*record(A)[1:], (A, None, "AGE", 60.0), *record(B)))
    found = only(check(root), "time-order")
    assert found.examples == (Example(5, 1, A, "no time after 2020-03-01 18:00:00"),)


def test_a_birth_may_be_on_a_day_that_stands_for_unknown(root: Path) -> None:
    """And at midnight; the other events decide about the clock."""
    rows = [*record(A), *record(B)]
    rows[1] = (A, dt.datetime(1900, 1, 1), "MEDS_BIRTH", None)
    store(root / DATA, events(*rows))
    assert check(root).findings == ()


def test_codes_that_repeat_with_and_without_unit_differ(root: Path) -> None:
    edit_codes = pl.read_parquet(root / CODES)
    again = edit_codes.filter(pl.col("code") == "HR").with_columns(unit=pl.lit(None, pl.String))
    pl.concat([edit_codes, again]).write_parquet(root / CODES)
    found = only(check(root), "code-units-differ")
    assert found.examples[0].value == "HR: bpm, none"


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        ("categorical_value", "holds neither boolean_value nor float_value, only categorical_value"),
        (None, "holds neither boolean_value nor float_value"),
    ],
)
def test_labels_of_a_kind_that_is_not_learned(root: Path, column: str | None, fault: str) -> None:
    values = {column: pl.lit("home")} if column else {}
    edit(root / DEATHS, lambda table: table.drop("boolean_value").with_columns(**values))
    assert only(check(root), "label-kind").what == fault


def test_files_of_one_task_hold_one_kind(root: Path) -> None:
    edit(
        root / DEATHS,
        lambda table: table.drop("boolean_value").with_columns(float_value=pl.lit(1.0, pl.Float32)),
    )
    found = only(check(root), "label-kind")
    assert (found.file, found.what) == ("labels/death", "some files hold boolean_value, others float_value")


def test_labels_as_aces_writes_them_are_read_and_explained(root: Path) -> None:
    columns = {
        "integer_value": pl.lit(None, pl.Int64),
        "float_value": pl.lit(None, pl.Float32),
        "categorical_value": pl.lit(None, pl.String),
    }
    for path in root.glob("labels/death/*.parquet"):
        edit(path, lambda table: table.with_columns(**columns))
    report = check(root)
    assert report.errors == ()
    assert names(report) == {"label-column-empty"}
    assert report.summary.tasks["death"].splits["train"].positives == 1
    assert len(MedsDataset.open(root).labels("death")) == 6
