"""What a data set holds, in figures: for the person who made it, to see whether it is what they meant."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl

from hymate.data.checks.labels import TaskLabels
from hymate.data.checks.tallies import quantiles_of
from hymate.data.meds_files import SPLITS

Count = int | str
"""A number; text ("<10") where a shared report hides it."""

Share = float | str | None
"""A share in [0, 1]; text ("<10", "all but <10") where it would tell a small count; None: of nothing."""


@dataclass(frozen=True)
class ValueRange:
    """Quantiles (nearest rank, to 3 significant digits) and extremes.

    None where a shared report hides them: they would be one person's value.
    """

    p1: float | None
    median: float
    p99: float | None
    min: float | None
    max: float | None


@dataclass(frozen=True)
class CodeSummary:
    """One code of the events."""

    code: str
    unit: str | None
    events: Count
    numbers: Count
    """Events with a finite value."""
    subjects: Count
    missing_subjects: Share
    """Share of the subjects without any such event."""
    missing_stays: Share
    """Share of the stays (label rows) without one up to their prediction time; None without labels."""
    values: ValueRange | None


@dataclass(frozen=True)
class SplitLabels:
    """The stays of one task in one split."""

    stays: Count
    subjects: Count
    positives: Count | None = None
    """Of a yes/no label."""
    rate: float | None = None
    """Share of positives; None when it is not known."""
    values: ValueRange | None = None
    """Of a numeric label."""


@dataclass(frozen=True)
class TaskSummary:
    """One task's stays, by split."""

    kind: str | None
    splits: dict[str, SplitLabels]


@dataclass(frozen=True)
class Summary:
    """The figures of one data set."""

    name: str
    files: int
    events: Count
    """All rows, static ones included."""
    static: Count
    """Rows without a time."""
    subjects: Count
    first: str | None
    last: str | None
    """Earliest and latest time of an event, births left out."""
    splits: dict[str, Count]
    """Subjects with events, per split; "none": in no split."""
    listed_without_events: Count
    """Subjects that the split file lists but no event has."""
    stays: Count
    """Different (subject, prediction time) of all tasks."""
    tasks: dict[str, TaskSummary]
    codes_in_events: int
    codes: tuple[CodeSummary, ...]
    """The codes that most subjects have."""


NO_SPLIT = "none"


def subjects_per_split(subjects: pl.DataFrame, splits: pl.DataFrame) -> dict[str, Count]:
    """Subjects with events, per split; the rest under "none" (left out when there is no rest)."""
    placed = subjects.join(splits, on="subject_id", how="left")["split"]
    counts: dict[str, Count] = {name: int((placed == name).sum()) for name in SPLITS}
    if placed.null_count():
        counts[NO_SPLIT] = placed.null_count()
    return counts


def summarise_task(labels: TaskLabels, splits: pl.DataFrame) -> TaskSummary:
    """Stays, subjects and labels of one task per split."""
    placed = labels.table.join(splits, on="subject_id", how="left")
    placed = placed.with_columns(pl.col("split").fill_null(NO_SPLIT))
    parts = {name: placed.filter(pl.col("split") == name) for name in (*SPLITS, NO_SPLIT)}
    if parts[NO_SPLIT].is_empty():
        del parts[NO_SPLIT]
    return TaskSummary(labels.kind, {name: _split_labels(part, labels.kind) for name, part in parts.items()})


def _split_labels(part: pl.DataFrame, kind: str | None) -> SplitLabels:
    stays, subjects = len(part), part["subject_id"].n_unique()
    if not stays or kind is None:
        return SplitLabels(stays, subjects)
    if kind == "boolean_value":
        positives = int((part["label"] > 0.5).sum())
        return SplitLabels(stays, subjects, positives=positives, rate=positives / stays)
    counted = part.group_by(value="label").agg(count=pl.len()).with_columns(code=pl.lit(""))
    row = quantiles_of(counted).row(0, named=True)
    label = part["label"]
    extremes = {"min": float(str(label.min())), "max": float(str(label.max()))}
    return SplitLabels(stays, subjects, values=ValueRange(row["p1"], row["median"], row["p99"], **extremes))


def summarise_codes(
    table: pl.DataFrame, units: pl.DataFrame, subjects: int, stays: int, shown: int
) -> tuple[CodeSummary, ...]:
    """The first `shown` codes (0: all) of `CodeTally.table`, with their units."""
    known = dict(units.iter_rows())
    rows = table.head(shown) if shown else table
    summaries = []
    for row in rows.iter_rows(named=True):
        quantiles = ("p1", "median", "p99", "min", "max")
        # A subject that is scattered over files is counted more than once.
        having = min(row["subjects"], subjects)
        values = ValueRange(*(row[name] for name in quantiles)) if row["numbers"] else None
        summaries.append(
            CodeSummary(
                code=row["code"],
                unit=known.get(row["code"]),
                events=row["events"],
                numbers=row["numbers"],
                subjects=having,
                missing_subjects=1 - having / subjects,
                missing_stays=max(0.0, 1 - row["stays"] / stays) if stays else None,
                values=values,
            )
        )
    return tuple(summaries)


def time_range(subjects: pl.DataFrame) -> tuple[str | None, str | None]:
    """Earliest and latest time of an event as text; None when no event has a time."""
    first, last = subjects["first"].min(), subjects["last"].max()
    if not isinstance(first, dt.datetime) or not isinstance(last, dt.datetime):
        return None, None
    return first.isoformat(" ", "minutes"), last.isoformat(" ", "minutes")
