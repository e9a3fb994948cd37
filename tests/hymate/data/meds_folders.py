"""MEDS folders for tests of `hymate data check`: one that keeps every rule, and a way to break each."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from hymate.data.meds import EVENT_SCHEMA

NOON = dt.datetime(2020, 2, 29, 12)
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
NOW = dt.datetime(2021, 1, 1)
ROW_GROUP = 4

FIRST_SUBJECT = 710_000_001
"""Subjects are long numbers, so that a test can look for them in an output."""
SUBJECTS = {
    split: (FIRST_SUBJECT + 2 * i, FIRST_SUBJECT + 2 * i + 1)
    for i, split in enumerate(("train", "tuning", "held_out"))
}
A, B = SUBJECTS["train"]

DATA = "data/train/0.parquet"
DEATHS = "labels/death/train.parquet"
SPLITS = "metadata/subject_splits.parquet"
CODES = "metadata/codes.parquet"

Event = tuple[int, dt.datetime | None, str, float | None]


def events(*rows: Event) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row")


def store(path: Path, table: pl.DataFrame, row_group: int = ROW_GROUP) -> None:
    """Write `table` with arrow's plain strings, as MEDS wants them."""
    arrow = table.to_arrow()
    fields = [
        pa.field(field.name, pa.string() if pa.types.is_large_string(field.type) else field.type)
        for field in arrow.schema
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow.cast(pa.schema(fields)), path, row_group_size=row_group)


def edit(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    store(path, change(pl.read_parquet(path)))


def append(path: Path, *rows: Event) -> None:
    edit(path, lambda table: pl.concat([table, events(*rows)]))


def record(subject: int) -> list[Event]:
    """Six rows: subjects with an odd number die."""
    born = dt.datetime(1960, 5, 1)
    last = "MEDS_DEATH" if subject % 2 else "HOSPITAL_DISCHARGE//HOME"
    return [
        (subject, None, "GENDER//F", None),
        (subject, born, "MEDS_BIRTH", None),
        (subject, NOON, "HR", 80.0),
        (subject, NOON + HOUR, "HR", 90.0),
        (subject, NOON + 2 * HOUR, "Temp", 36.5),
        (subject, NOON + 30 * HOUR, last, None),
    ]


def write_good(root: Path) -> Path:
    """Three splits of two subjects, the tasks death (yes or no) and days (a number)."""
    members = [(subject, split) for split, pair in SUBJECTS.items() for subject in pair]
    for split, pair in SUBJECTS.items():
        store(root / "data" / split / "0.parquet", events(*(row for each in pair for row in record(each))))
        keys = pl.DataFrame({"subject_id": pair, "prediction_time": [NOON + DAY] * 2})
        deaths = keys.with_columns(boolean_value=pl.col("subject_id") % 2 == 1)
        store(root / "labels" / "death" / f"{split}.parquet", deaths)
        days = keys.with_columns(float_value=pl.Series([2.5, 7.0], dtype=pl.Float32))
        store(root / "labels" / "days" / f"{split}.parquet", days)
    store(root / SPLITS, pl.DataFrame(members, schema=["subject_id", "split"], orient="row"))
    codes = {
        "GENDER//F": None,
        "MEDS_BIRTH": None,
        "MEDS_DEATH": None,
        "HOSPITAL_DISCHARGE//HOME": None,
        "HR": "bpm",
        "Temp": "°C",
    }
    table = pl.DataFrame({"code": list(codes), "unit": list(codes.values())})
    empty = [
        pl.lit(None, pl.String).alias("description"),
        pl.lit(None, pl.List(pl.String)).alias("parent_codes"),
    ]
    arrow = table.with_columns(empty).to_arrow()
    wanted = {"parent_codes": pa.list_(pa.string())}
    fields = [pa.field(name, wanted.get(name, pa.string())) for name in arrow.schema.names]
    pq.write_table(arrow.cast(pa.schema(fields)), root / CODES)
    (root / "metadata" / "dataset.json").write_text(json.dumps({"dataset_name": "good"}))
    return root


def _shift(root: Path, years: int) -> None:
    for path in [*root.glob("data/*/*.parquet"), *root.glob("labels/*/*.parquet")]:
        name = "time" if "data" in path.parts[-3] else "prediction_time"
        _columns(path, pl.col(name).dt.offset_by(f"{years}y"))


def _set(path: Path, where: pl.Expr, **values: pl.Expr) -> None:
    """Put other values into the rows that `where` selects."""
    changes = [pl.when(where).then(value).otherwise(name).alias(name) for name, value in values.items()]
    edit(path, lambda table: table.with_columns(changes).cast(dict(table.schema)))  # type: ignore[arg-type]


def _first(code: str) -> pl.Expr:
    """The first event of subject `A` with this code."""
    mine = (pl.col("subject_id") == A) & (pl.col("code") == code)
    return mine & (mine.cum_sum() == 1)


def _columns(path: Path, *columns: pl.Expr | pl.Series) -> None:
    edit(path, lambda table: table.with_columns(*columns))


def _as_large_string(path: Path) -> None:
    pq.write_table(pl.read_parquet(path).to_arrow(), path)


def _no_rows(root: Path) -> None:
    for path in root.glob("data/*/*.parquet"):
        edit(path, lambda table: table[:0])


def _midnight(root: Path) -> None:
    for path in root.glob("data/*/*.parquet"):
        _columns(path, pl.col("time").dt.truncate("1d"))


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


BREAKS: dict[str, Callable[[Path], None]] = {
    "column-missing": lambda root: edit(root / DATA, lambda table: table.drop("code")),
    "column-type": lambda root: _columns(root / DATA, pl.col("numeric_value").cast(pl.Int64)),
    "column-encoding": lambda root: _as_large_string(root / DATA),
    "column-extra": lambda root: _columns(root / DEATHS, pl.lit(1.0).alias("score")),
    "null": lambda root: _set(root / DATA, _first("Temp"), code=pl.lit(None, pl.String)),
    "metadata-unreadable": lambda root: _text(root / "metadata/dataset.json", "{"),
    "metadata-fields": lambda root: _text(root / "metadata/dataset.json", '{"dataset_name": 3}'),
    "no-events": _no_rows,
    "subject-scattered": lambda root: append(root / DATA, (A, NOON + 31 * HOUR, "HR", 1.0)),
    "subject-in-two-files": lambda root: store(
        root / "data/train/1.parquet", events((A, NOON + 3 * HOUR, "HR", 1.0))
    ),
    "time-order": lambda root: _set(root / DATA, _first("Temp"), time=pl.lit(NOON + HOUR / 2)),
    "duplicate-row": lambda root: append(root / DATA, record(B)[-1]),
    "non-finite": lambda root: _set(root / DATA, _first("Temp"), numeric_value=pl.lit(float("nan"))),
    "before-birth": lambda root: store(
        root / DATA,
        events((A, NOON, "HR", 1.0), (A, NOON + HOUR, "MEDS_BIRTH", None), *record(A)[4:], *record(B)),
    ),
    "after-death": lambda root: store(
        root / DATA, events(*record(A), (A, NOON + 40 * HOUR, "HR", 1.0), *record(B))
    ),
    "future": lambda root: append(root / DATA, (B, NOW + 2 * DAY, "HR", 1.0)),
    "clock-shifted": lambda root: _shift(root, 150),
    "clock-placeholder": lambda root: _set(
        root / DATA, _first("HR"), time=pl.lit(dt.datetime(1970, 1, 1, 9))
    ),
    "clock-midnight": _midnight,
    "codes-missing": lambda root: _remove(root / CODES),
    "codes-empty": lambda root: pq.write_table(pq.read_table(root / CODES)[:0], root / CODES),
    "code-unlisted": lambda root: _set(root / DATA, _first("Temp"), code=pl.lit("Lactate")),
    "code-repeated": lambda root: _codes(root, pq.read_table(root / CODES)[4:5]),
    "code-units-differ": lambda root: _codes(root, _in_other_unit(pq.read_table(root / CODES)[4:5])),
    "splits-missing": lambda root: _remove(root / SPLITS),
    "split-unknown": lambda root: _set(root / SPLITS, pl.col("subject_id") == A, split=pl.lit("validation")),
    "subject-in-two-splits": lambda root: edit(
        root / SPLITS, lambda table: pl.concat([table, table[:1].with_columns(split=pl.lit("held_out"))])
    ),
    "subject-without-split": lambda root: edit(root / SPLITS, lambda table: table[1:]),
    "split-folder": lambda root: _swap_splits(root / SPLITS),
    "labels-missing": lambda root: _remove(*root.glob("labels/*/*.parquet")),
    "label-kind": lambda root: _columns(root / DEATHS, pl.lit(1.0, pl.Float32).alias("float_value")),
    "label-column-empty": lambda root: _columns(root / DEATHS, pl.lit(None, pl.Int64).alias("integer_value")),
    "label-null": lambda root: _set(
        root / DEATHS, pl.col("subject_id") == A, boolean_value=pl.lit(None, pl.Boolean)
    ),
    "label-non-finite": lambda root: _set(
        root / "labels/days/train.parquet", pl.col("subject_id") == A, float_value=pl.lit(float("inf"))
    ),
    "label-repeated": lambda root: edit(root / DEATHS, lambda table: pl.concat([table, table[:1]])),
    "label-without-data": lambda root: edit(
        root / DEATHS,
        lambda table: pl.concat([table, table[:1].with_columns(subject_id=pl.lit(1, pl.Int64))]),
    ),
    "label-without-split": lambda root: edit(root / SPLITS, lambda table: table[1:]),
    "prediction-before-record": lambda root: _set(
        root / DEATHS, pl.col("subject_id") == A, prediction_time=pl.lit(NOON - HOUR)
    ),
    "prediction-after-record": lambda root: _set(
        root / DEATHS, pl.col("subject_id") == A, prediction_time=pl.lit(NOON + 33 * DAY)
    ),
    "one-class": lambda root: _columns(root / DEATHS, pl.lit(True).alias("boolean_value")),
    "task-without-stays": lambda root: _remove(root / DEATHS),
}
"""Rule -> how to break it, and as little else as possible, in a folder that `write_good` made."""

COMPANIONS: dict[str, set[str]] = {
    "column-missing": {"label-without-data"},
    "column-type": {"label-without-data"},
    "no-events": {"label-without-data"},
    "split-unknown": {"label-without-split", "one-class"},
    "subject-without-split": {"label-without-split", "one-class"},
    "label-without-split": {"subject-without-split", "one-class"},
    "label-without-data": {"label-without-split"},
    "label-kind": {"task-without-stays"},
    "label-null": {"one-class"},
    "label-non-finite": {"one-class"},
}
"""Rules that necessarily break along with another."""


def _text(path: Path, text: str) -> None:
    path.write_text(text)


def _codes(root: Path, more: pa.Table) -> None:
    pq.write_table(pa.concat_tables([pq.read_table(root / CODES), more]), root / CODES)


def _in_other_unit(row: pa.Table) -> pa.Table:
    position = row.schema.names.index("unit")
    return row.set_column(position, "unit", pa.array(["1/s"], pa.string()))


def _swap_splits(path: Path) -> None:
    """The list says tuning for those in data/train, and train for those in data/tuning."""
    other = pl.col("split").replace({"train": "tuning", "tuning": "train"})
    _columns(path, other)
