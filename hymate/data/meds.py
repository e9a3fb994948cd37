"""Read one MEDS data set: the form in which every site's records arrive.

MEDS 0.4 (https://github.com/Medical-Event-Data-Standard/meds): `data/**/*.parquet` holds one row per
event, `metadata/` what is known about the set, `labels/<task>/**/*.parquet` what is to be predicted.
The `meds` package checks columns and types only. Reading here also checks what would silently spoil
training: order and contiguity of subjects, non-finite values, a subject in two files or two splits.
It stops at the first fault; `hymate.data.checks` finds all of them. Writing: `hymate.data.meds_writing`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
from meds.schema import (
    DataSchema,
    LabelSchema,
    SubjectSplitSchema,
    code_metadata_filepath,
    data_subdirectory,
    dataset_metadata_filepath,
    subject_splits_filepath,
)

from hymate.data.meds_files import (
    EVENT_SCHEMA,
    LABELS,
    REWRITE,
    SPLITS,
    fault_in_row,
    parquet_files,
    read_schema,
    read_table,
)
from hymate.data.meds_writing import write_dataset
from hymate.errors import InputFault

__all__ = ["EVENT_SCHEMA", "LABELS", "SPLITS", "MedsDataset", "write_dataset"]

_LABEL_VALUES = ("boolean_value", "float_value")


@dataclass(frozen=True)
class MedsDataset:
    """A MEDS data set on disk. Nothing is read before it is asked for."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> MedsDataset:
        """Raises InputFault when `root` is missing or holds no MEDS data."""
        if not root.is_dir():
            raise InputFault(root, "no such folder", "give the folder of a MEDS data set")
        dataset = cls(root)
        if not dataset.data_files():
            what = f"is not a MEDS data set (no {data_subdirectory}/**/*.parquet)"
            raise InputFault(root, what, "give the folder that holds data/ and metadata/")
        return dataset

    @property
    def name(self) -> str:
        """`dataset_name` of metadata/dataset.json, or the folder's name.

        Raises InputFault when dataset.json is not a JSON object.
        """
        path = self.root / dataset_metadata_filepath
        if not path.is_file():
            return self.root.name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise InputFault(path, "is not a JSON object", REWRITE)
        return str(content.get("dataset_name") or self.root.name)

    def events(self) -> pl.DataFrame:
        """All events, sorted by (subject_id, time), static rows first; ties keep the file's order.

        Returns:
            `subject_id` Int64, `time` Datetime("us") (null = static), `code` String,
            `numeric_value` Float32 (null = none; never NaN or infinite).

        Raises:
            InputFault: a file breaks MEDS' schema or its ordering rules.
        """
        frames = []
        home: dict[int, Path] = {}
        for path in self.data_files():
            frame = _read_events(path)
            for subject in frame["subject_id"].unique().to_list():
                other = home.setdefault(subject, path)
                if other != path:
                    what = f"subject {subject} is also in {other.relative_to(self.root)}"
                    raise InputFault(path, what, "a subject's events belong in one file")
            frames.append(frame)
        events = pl.concat(frames)
        if not events["subject_id"].is_sorted():
            events = events.sort("subject_id", maintain_order=True)
        return events

    def splits(self) -> pl.DataFrame:
        """`subject_id` Int64, `split` String, sorted by subject.

        Raises:
            InputFault: no split file, another split name than MEDS', or a subject listed twice.
        """
        path = self.root / subject_splits_filepath
        if not path.is_file():
            raise InputFault(path, "no such file", "a data set to train on needs its subjects split")
        table = read_table(path, SubjectSplitSchema.schema())
        unknown = table.filter(~pl.col("split").is_in(SPLITS))
        if len(unknown):
            subject, split = unknown.row(0)
            what = f"subject {subject} is in split {split!r}"
            raise InputFault(path, what, f"use {', '.join(SPLITS)}")
        twice = table.filter(pl.col("subject_id").is_duplicated())
        if len(twice):
            subject = twice["subject_id"][0]
            names = twice.filter(pl.col("subject_id") == subject)["split"].to_list()
            what = f"subject {subject} is listed {len(names)} times ({', '.join(names)})"
            raise InputFault(path, what, "a subject belongs to one split")
        return table.sort("subject_id")

    def tasks(self) -> list[str]:
        """Names of the label sets below `labels/`, sorted."""
        folder = self.root / LABELS
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and parquet_files(entry))

    def labels(self, task: str) -> pl.DataFrame:
        """What is to be predicted, sorted by (subject_id, prediction_time).

        Returns:
            `subject_id` Int64, `prediction_time` Datetime("us") (inclusive end of what a model may
            see), `label` Float32: `boolean_value` as 0 or 1, or `float_value` in the task's unit.

        Raises:
            InputFault: no such task, a label of another kind, null, non-finite, or given twice.
        """
        files = parquet_files(self.root / LABELS / task)
        if not task or not files:
            known = ", ".join(self.tasks()) or "none"
            raise InputFault(self.root, f"no labels for task {task!r}", f"tasks that exist: {known}")
        table = pl.concat([_read_labels(path) for path in files]).sort("subject_id", "prediction_time")
        twice = table.filter(pl.struct("subject_id", "prediction_time").is_duplicated())
        if len(twice):
            subject, time, _ = twice.row(0)
            what = f"subject {subject} has more than one label at {time}"
            raise InputFault(
                self.root / LABELS / task, what, "keep one label per subject and prediction time"
            )
        return table

    def units(self) -> dict[str, str]:
        """Code -> unit, for the codes whose unit metadata/codes.parquet declares (column `unit`)."""
        path = self.root / code_metadata_filepath
        if not path.is_file():
            return {}
        schema = read_schema(path)
        if "unit" not in schema.names:
            return {}
        table = read_table(
            path, pa.schema([("code", pa.string()), ("unit", pa.string())]), nullable=("unit",)
        )
        return dict(table.drop_nulls("unit").iter_rows())

    def data_files(self) -> list[Path]:
        """The files of events, sorted by path."""
        return parquet_files(self.root / data_subdirectory)


def _read_events(path: Path) -> pl.DataFrame:
    schema = read_schema(path)
    wanted = DataSchema.schema()
    has_values = "numeric_value" in schema.names
    names = [name for name in EVENT_SCHEMA if name != "numeric_value" or has_values]
    frame = read_table(
        path, pa.schema([wanted.field(name) for name in names]), nullable=("time", "numeric_value")
    )
    if not has_values:
        frame = frame.with_columns(pl.lit(None, pl.Float32).alias("numeric_value"))
    frame = frame.cast({"numeric_value": pl.Float32})
    _check_values(path, frame)
    _check_order(path, frame)
    return frame


def _check_values(path: Path, frame: pl.DataFrame) -> None:
    infinite = ~frame["numeric_value"].is_finite().fill_null(True)
    if infinite.any():
        row = infinite.arg_max()
        subject, _, code, value = frame.row(row or 0)
        what = f"subject {subject} has value {value} for code {code!r}"
        fault_in_row(path, row, what, "leave numeric_value null when there is none")


def _check_order(path: Path, frame: pl.DataFrame) -> None:
    subject, time = frame["subject_id"], frame["time"]
    starts = (subject != subject.shift(1)).fill_null(True)
    if int(starts.sum()) != subject.n_unique():
        firsts = subject.to_frame().with_row_index("row").filter(starts)
        again = firsts.filter(~pl.col("subject_id").is_first_distinct())
        what = f"subject {again['subject_id'][0]} comes back after another subject's rows"
        fault_in_row(path, again["row"][0], what, "keep each subject's rows together")
    before = time.shift(1)
    backwards = (time < before).fill_null(False) | (time.is_null() & before.is_not_null())
    wrong = backwards & ~starts
    if wrong.any():
        row = wrong.arg_max() or 0
        what = f"subject {subject[row]} goes back in time ({time[row] or 'no time'} after {before[row]})"
        fault_in_row(path, row, what, "sort each subject's rows by time, rows without time first")


def _read_labels(path: Path) -> pl.DataFrame:
    schema = read_schema(path)
    wanted = LabelSchema.schema()
    keys = [wanted.field("subject_id"), wanted.field("prediction_time")]
    present = [name for name in _LABEL_VALUES if name in schema.names]
    table = read_table(
        path, pa.schema([*keys, *(wanted.field(name) for name in present)]), nullable=_LABEL_VALUES
    )
    # ACES writes every kind of value column and leaves all but one empty.
    used = [name for name in present if len(table) == 0 or table[name].null_count() < len(table)]
    if len(used) != 1 and len(table):
        what = f"holds {'both ' if used else 'neither '}boolean_value {'and' if used else 'nor'} float_value"
        raise InputFault(path, what, "a task has one kind of label")
    if not used:
        return pl.DataFrame(
            schema={"subject_id": pl.Int64, "prediction_time": pl.Datetime("us"), "label": pl.Float32}
        )
    label = table[used[0]].cast(pl.Float32)
    bad = ~label.is_finite().fill_null(False)
    if bad.any():
        row = bad.arg_max() or 0
        what = f"subject {table['subject_id'][row]} has label {label[row]}"
        fault_in_row(path, row, what, "leave subjects without a label out")
    return table.select("subject_id", "prediction_time", label.alias("label"))
