"""A hospital's CSV or Parquet files of events, labels and characteristics become one MEDS data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from meds.schema import dataset_metadata_filepath

from hymate.data.labelling import require_label_name
from hymate.data.meds import SPLITS, write_dataset
from hymate.data.output import fresh_folder, require_space
from hymate.data.splits import stratified_splits
from hymate.data.tabular.clock import Clock, TimeUnit
from hymate.data.tabular.reading import TableFile, read_file
from hymate.data.tabular.subjects import apply_numbers, mapping_path, number_subjects, write_mapping
from hymate.data.tabular.values import code_and_value, to_labels, units_of
from hymate.errors import InputFault

EVENT_ROLES = ("subject", "time", "code", "value")
LABEL_ROLES = ("subject", "prediction_time", "label")

DUPLICATES = "exact duplicates"
UNLABELLED = "rows of the label file without a label"
UNKNOWN = "labels of subjects that have neither events nor characteristics"


@dataclass(frozen=True)
class TripletSource:
    """The files of one hospital, and how they are written. Roles are mapped to column names."""

    events: Path
    labels: Path
    columns: Mapping[str, str]
    """subject, time, code, value; optionally unit."""
    label_columns: Mapping[str, str]
    """subject, prediction_time, label; optionally outcome_start."""
    static: Path | None = None
    """One row a subject; every column but the subject's is a characteristic."""
    static_subject: str = "subject"
    splits: Path | None = None
    """Columns subject and split."""
    units: Path | None = None
    """Columns code and unit."""
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    separator: str = ","
    missing: Sequence[str] = field(default=())
    """Words that mean an empty cell."""
    skip_unknown: bool = False
    """Leave labels of unknown subjects out, rather than refuse them."""


def prepare_triplets(
    source: TripletSource, out: Path, *, task: str, seed: int = 0, force: bool = False
) -> dict[str, Any]:
    """Write the MEDS data set `out`; returns its figures.

    Where subjects are not whole numbers, `<out>.subjects.csv` beside it says who is who (mode 600).

    Raises:
        InputFault: whatever is wrong with a file, by row and column; nothing is written then.
    """
    require_label_name(task, "--task")
    _refuse_foreign(out, force=force)
    files = _Files.read(source)
    mapping = mapping_path(out)
    numbers = number_subjects(files.all(), mapping)
    clock = Clock(source.time_unit, source.time_format)
    left_out: dict[str, int] = {}
    events, units = _events(files, clock, numbers, left_out)
    labels = _labels(files, clock, numbers, set(events["subject_id"]), left_out, source.skip_unknown)
    splits = _splits(files, numbers, events, labels, seed)
    codes = (
        events.select("code")
        .unique()
        .with_columns(unit=pl.col("code").replace_strict(units, default=None, return_dtype=pl.String))
    )
    require_space(out, int(events.estimated_size()))
    # The data set is whole before the mapping is written, and comes to its place after it.
    with fresh_folder(out, replace=force) as folder:
        write_dataset(folder, name=out.name, events=events, splits=splits, labels={task: labels}, codes=codes)
        if numbers is not None:
            write_mapping(mapping, numbers)
    figures = _figures(events, labels, splits)
    private = {} if numbers is None else {"mapping": str(mapping)}
    return {"task": task, "folder": str(out), **figures, "left_out": left_out, **private}


@dataclass(frozen=True)
class _Files:
    events: TableFile
    labels: TableFile
    static: TableFile | None
    splits: TableFile | None
    units: TableFile | None

    @classmethod
    def read(cls, source: TripletSource) -> _Files:
        def read(
            path: Path | None, columns: Mapping[str, str] | None, required: Sequence[str]
        ) -> TableFile | None:
            if path is None:
                return None
            return read_file(
                path, columns, required=required, separator=source.separator, missing=source.missing
            )

        if source.units is not None and "unit" in source.columns:
            raise InputFault("--units", "units are in a column of the events, too", "give them once")
        events = read(source.events, source.columns, ("subject", "time", "code"))
        labels = read(source.labels, source.label_columns, ("subject", "prediction_time"))
        assert events is not None
        assert labels is not None
        static = read(source.static, None, ())
        return cls(
            events,
            labels,
            _with_subject(static, source.static_subject) if static is not None else None,
            read(source.splits, {"subject": "subject", "split": "split"}, ("subject", "split")),
            read(source.units, {"code": "code", "unit": "unit"}, ("code",)),
        )

    def all(self) -> list[TableFile]:
        """The files that name subjects."""
        return [file for file in (self.events, self.labels, self.static, self.splits) if file is not None]


def _with_subject(file: TableFile, name: str) -> TableFile:
    """A file read under its own names, its subject column under the role's."""
    if name not in file.names:
        known = ", ".join(file.names)
        raise InputFault(file.path, f"has no column {name!r} for the subject", f"its columns: {known}")
    if name != "subject" and "subject" in file.names:
        raise InputFault(file.path, f"has a column 'subject' beside {name!r}", "rename one of them")
    names = {"subject" if role == name else role: column for role, column in file.names.items()}
    renamed = TableFile(file.path, file.table.rename({name: "subject"}), names, file.first_row)
    renamed.refuse(renamed["subject"].is_null(), "subject", "is not allowed here", "fill the cell")
    twice = ~renamed["subject"].is_first_distinct()
    renamed.refuse(twice, "subject", "is there twice", "one row a subject")
    return renamed


def _events(
    files: _Files, clock: Clock, numbers: dict[str, int] | None, left_out: dict[str, int]
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Events with and without a time, and the codes' units."""
    file = files.events
    code, value = code_and_value(file, "code", "value")
    events = pl.DataFrame(
        {
            "subject_id": apply_numbers(file, numbers),
            "time": clock.read(file, "time"),
            "code": code,
            "numeric_value": value,
        }
    )
    units = units_of(file, "code", "unit", code) if file.has("unit") else _unit_file(files.units)
    distinct = events.unique(maintain_order=True)
    left_out[DUPLICATES] = len(events) - len(distinct)
    # What a table lists last at one instant stays last: sorting keeps the order of ties.
    return pl.concat([*_static(files.static, numbers), distinct]), units


def _static(file: TableFile | None, numbers: dict[str, int] | None) -> list[pl.DataFrame]:
    """Per characteristic its events without a time; a cell left empty gives none."""
    if file is None:
        return []
    subject = apply_numbers(file, numbers)
    parts = []
    for name in file.names:
        if name == "subject":
            continue
        named = TableFile(
            file.path,
            file.table.with_columns(pl.lit(name).alias("\0code")),
            {**file.names, "\0code": name},
            file.first_row,
        )
        code, value = code_and_value(named, "\0code", name)
        rows = pl.DataFrame({"subject_id": subject, "code": code, "numeric_value": value})
        rows = rows.filter(file[name].is_not_null())
        time = pl.lit(None, pl.Datetime("us")).alias("time")
        parts.append(rows.select("subject_id", time, "code", "numeric_value"))
    return parts


def _unit_file(file: TableFile | None) -> dict[str, str]:
    if file is None:
        return {}
    file.refuse(~file["code"].is_first_distinct(), "code", "is there twice", "one row a code")
    return dict(file.table.select("code", "unit").drop_nulls().iter_rows())


def _labels(
    files: _Files,
    clock: Clock,
    numbers: dict[str, int] | None,
    known: set[int],
    left_out: dict[str, int],
    skip_unknown: bool,
) -> pl.DataFrame:
    """The labels, checked: none twice, none of a stranger, none whose outcome is already under way."""
    file = files.labels
    value = to_labels(file, "label")
    column = "boolean_value" if value.dtype == pl.Boolean else "float_value"
    labels = pl.DataFrame(
        {
            "subject_id": apply_numbers(file, numbers),
            "prediction_time": clock.read(file, "prediction_time"),
            column: value,
        }
    )
    if file.has("outcome_start"):
        start = clock.read(file, "outcome_start")
        late = start <= labels["prediction_time"]
        shown = file["prediction_time"][late.fill_null(False).arg_max() or 0]
        what = f"(start of the outcome window) is not after the prediction time {str(shown)!r}"
        file.refuse(late, "outcome_start", what, "predict strictly before the outcome window begins")
        remedy = "fill the cell, or leave outcome_start out of --label-columns"
        file.refuse(start.is_null(), "outcome_start", "(start of the outcome window) is not known", remedy)
    twice = ~labels.select("subject_id", "prediction_time").is_unique()
    file.refuse(twice, "subject", "has two labels at one prediction time", "keep one of them")
    unknown = ~labels["subject_id"].is_in(sorted(known))
    if not skip_unknown:
        remedy = "correct the id, remove the row, or leave all such labels out with --skip-unknown"
        file.refuse(unknown, "subject", "has neither events nor characteristics", remedy)
    left_out[UNKNOWN] = int(unknown.sum())
    left_out[UNLABELLED] = int((value.is_null() & ~unknown).sum())
    labels = labels.filter(~unknown).drop_nulls(column)
    if labels.is_empty():
        raise InputFault(file.path, "no label is left", "see that its subjects are those of the events")
    return labels


def _splits(
    files: _Files, numbers: dict[str, int] | None, events: pl.DataFrame, labels: pl.DataFrame, seed: int
) -> pl.DataFrame:
    """The split of every subject of the data: as the file says, or drawn, stratified by the label."""
    subjects = pl.concat([events["subject_id"], labels["subject_id"]]).unique().sort().to_frame()
    if files.splits is None:
        if "boolean_value" in labels.columns:
            ever = labels.group_by("subject_id").agg(pl.col("boolean_value").any().alias("stratum"))
        else:
            ever = labels.select("subject_id", stratum=pl.lit(False)).unique()
        return stratified_splits(subjects.join(ever, on="subject_id", how="left"), seed)
    file = files.splits
    known = ~file["split"].is_in(SPLITS)
    file.refuse(known, "split", "is no split", f"use {', '.join(SPLITS)}")
    file.refuse(~file["subject"].is_first_distinct(), "subject", "is there twice", "one row a subject")
    given = pl.DataFrame({"subject_id": apply_numbers(file, numbers), "split": file["split"]})
    missing = subjects.join(given, on="subject_id", how="anti")
    if len(missing):
        what = f"holds no split for {len(missing)} of {len(subjects)} subjects"
        raise InputFault(file.path, what, "list every subject of events and labels")
    return given.join(subjects, on="subject_id", how="semi")


def _figures(events: pl.DataFrame, labels: pl.DataFrame, splits: pl.DataFrame) -> dict[str, Any]:
    dynamic = events.filter(pl.col("time").is_not_null())
    without = set(splits["subject_id"]) - set(dynamic["subject_id"])
    figures: dict[str, Any] = {
        "subjects": len(splits),
        "subjects_without_events": len(without),
        "events": len(dynamic),
        "static": len(events) - len(dynamic),
        "codes": events["code"].n_unique(),
        "labels": len(labels),
        "splits": {split: int((splits["split"] == split).sum()) for split in SPLITS},
    }
    if "boolean_value" in labels.columns:
        figures["positive"] = int(labels["boolean_value"].sum())
    return figures


def _refuse_foreign(out: Path, *, force: bool) -> None:
    """Let a data set of this project be replaced under `--force`, and nothing else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        made_by = json.loads((out / dataset_metadata_filepath).read_text(encoding="utf-8"))["etl_name"]
    except (OSError, ValueError, KeyError, TypeError):
        made_by = None
    if made_by != "hymate":
        raise InputFault(out, "exists already and is no data set of this command", "give another --out")
    if not force:
        raise InputFault(out, "exists already", "give another --out, or --force to replace it")
