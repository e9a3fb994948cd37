"""Rules on the label sets: what is predicted, when, and for whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
from meds.schema import LabelSchema

from hymate.data.checks import rules
from hymate.data.checks.event_files import ParquetFile, examples
from hymate.data.checks.events import shown_time
from hymate.data.checks.findings import Example, Findings
from hymate.data.checks.rules import Rule
from hymate.data.checks.schema import check_columns
from hymate.data.checks.tables import check_nulls, read_columns
from hymate.data.meds_files import SPLITS, parquet_files
from hymate.errors import InputFault

LONG_AFTER_DAYS = 30
"""A prediction this long after the last event is probably a mistake: the look-back hardly reaches it."""

_KEYS = ("subject_id", "prediction_time")
_READ = ("boolean_value", "float_value")
_VALUES = (*_READ, "integer_value", "categorical_value")

_COLUMNS: dict[str, type[pl.DataType] | pl.DataType] = {
    "file": pl.UInt32,
    "row": pl.Int64,
    "subject_id": pl.Int64,
    "prediction_time": pl.Datetime("us"),
    "label": pl.Float64,
}


@dataclass(frozen=True)
class TaskLabels:
    """The label rows of one task that could be read.

    `table` has `file` UInt32 (index into `files`), `row`, `subject_id`, `prediction_time`, `label` Float64.
    """

    task: str
    folder: str
    """Where the label files are, as messages name it."""
    kind: str | None
    """"boolean_value" or "float_value"; None when no row has a label that can be learned."""
    files: tuple[ParquetFile, ...]
    table: pl.DataFrame

    def report(self, findings: Findings, rule: Rule, found: pl.DataFrame, **names: object) -> None:
        """Add label rows to the findings of their files, the prediction time as the value."""
        found = found.with_columns(value=pl.format("predicted at {}", shown_time("prediction_time")))
        for (index,), rows in found.group_by("file", maintain_order=True):
            file = self.files[int(str(index))]
            findings.add(rule, file.name, count=len(rows), examples=examples(file, rows), **names)


def read_label_sets(folder: Path, base: Path, findings: Findings) -> list[TaskLabels]:
    """Every `folder/<task>/**/*.parquet`, columns and values checked; sorted by task.

    Args:
        base: the folder that messages leave out of file names.

    Raises:
        InputFault: label files lie directly in `folder`, or a file cannot be read.
    """
    paths = parquet_files(folder) if folder.is_dir() else []
    for path in paths:
        if path.parent == folder:
            what = f"{path.name} lies directly in it: which task is it?"
            raise InputFault(folder, what, "give the folder above it: one folder per task")
    names = sorted({path.relative_to(folder).parts[0] for path in paths})
    if not names:
        findings.add(rules.LABELS_MISSING, folder.relative_to(base).as_posix())
    return [_read_task(folder / name, base, findings) for name in names]


def _read_task(folder: Path, base: Path, findings: Findings) -> TaskLabels:
    files = tuple(ParquetFile.open(path, base) for path in parquet_files(folder))
    name = folder.relative_to(base).as_posix()
    tables, kinds = [], set()
    for index, file in enumerate(files):
        if not check_columns(file, LabelSchema, findings, (*_KEYS, *_READ)):
            continue
        table = read_columns(file, [*_KEYS, *_VALUES])
        kind = _kind(file, table, findings)
        if kind is None:
            continue
        kinds.add(kind)
        table = check_nulls(file, table, _KEYS, findings)
        table = _check_values(file, table, pl.col(kind).cast(pl.Float32).cast(pl.Float64), findings)
        tables.append(table.with_columns(file=pl.lit(index, pl.UInt32)).select(list(_COLUMNS)))
    if len(kinds) > 1:
        fault = "some files hold boolean_value, others float_value"
        findings.add(rules.LABEL_KIND, name, fault=fault)
    table = pl.concat(tables) if tables else pl.DataFrame(schema=_COLUMNS)
    return TaskLabels(folder.name, name, kinds.pop() if len(kinds) == 1 else None, files, table)


def _kind(file: ParquetFile, table: pl.DataFrame, findings: Findings) -> str | None:
    """The one column that holds this file's labels; empty columns beside it are what ACES writes."""
    if table.is_empty():
        return None
    present = [name for name in _VALUES if name in table.columns]
    used = [name for name in present if table[name].null_count() < len(table)]
    if used:
        for name in present:
            if name not in used:
                findings.add(rules.LABEL_COLUMN_EMPTY, file.name, column=name)
    readable = [name for name in used if name in _READ]
    if len(readable) == 1:
        return readable[0]
    if readable:
        fault = "holds both boolean_value and float_value"
    else:
        others = f", only {' and '.join(used)}" if used else ""
        fault = f"holds neither boolean_value nor float_value{others}"
    findings.add(rules.LABEL_KIND, file.name, fault=fault)
    return None


def _check_values(file: ParquetFile, table: pl.DataFrame, label: pl.Expr, findings: Findings) -> pl.DataFrame:
    """Report labels that are null or no finite number; returns the rows without."""
    table = table.with_columns(label=label)
    for rule, wrong in (
        (rules.LABEL_NULL, pl.col("label").is_null()),
        (rules.LABEL_NON_FINITE, ~pl.col("label").is_finite()),
    ):
        found = table.filter(wrong).with_columns(value=pl.col("label").cast(pl.String))
        findings.add(rule, file.name, count=len(found), examples=examples(file, found))
    return table.filter(pl.col("label").is_finite())


def check_labels(
    labels: TaskLabels, subjects: pl.DataFrame, splits: pl.DataFrame | None, findings: Findings
) -> None:
    """Check one task against the record and the splits.

    Args:
        subjects: `subject_id`, `first`, `last` (time of its events, null when none has a time).
        splits: `subject_id`, `split` of the listed subjects; None when no list could be read.
    """
    table = labels.table
    repeated = ~pl.struct(_KEYS).is_first_distinct()
    labels.report(findings, rules.LABEL_REPEATED, table.filter(repeated))
    known = table.join(subjects, on="subject_id", how="inner", maintain_order="left")
    without = table.join(subjects, on="subject_id", how="anti", maintain_order="left")
    labels.report(findings, rules.LABEL_WITHOUT_DATA, without)
    time, last = pl.col("prediction_time"), pl.col("last")
    early = (time < pl.col("first")).fill_null(True)  # no event with a time at all
    labels.report(findings, rules.PREDICTION_BEFORE_RECORD, known.filter(early))
    late = known.filter(time > last + pl.duration(days=LONG_AFTER_DAYS))
    labels.report(findings, rules.PREDICTION_AFTER_RECORD, late, days=LONG_AFTER_DAYS)
    if splits is not None:
        unlisted = table.join(splits, on="subject_id", how="anti", maintain_order="left")
        labels.report(findings, rules.LABEL_WITHOUT_SPLIT, unlisted)
        _check_variety(labels, splits, findings)


def _check_variety(labels: TaskLabels, splits: pl.DataFrame, findings: Findings) -> None:
    """Every split has stays, and of more than one kind."""
    placed = labels.table.join(splits, on="subject_id", how="inner")
    for split in SPLITS:
        label = placed.filter(pl.col("split") == split)["label"]
        if label.is_empty():
            findings.add(rules.TASK_WITHOUT_STAYS, labels.folder, task=labels.task, split=split)
        elif label.n_unique() == 1:
            only = f"{label[0]:g}" if labels.kind == "float_value" else str(bool(label[0])).lower()
            findings.add(
                rules.ONE_CLASS,
                labels.folder,
                examples=[Example(value=f"all {len(label):,} are {only}")],
                task=labels.task,
                split=split,
            )
