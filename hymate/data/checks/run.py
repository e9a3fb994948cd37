"""All checks over one data set, in one pass over its events.

Memory: one piece of a file (`event_files.PIECE_ROWS` rows, about 300 MiB with what is computed on it),
about 60 bytes per subject, 40 bytes per label row, and some 100 bytes per distinct (code, value rounded
to three digits); never the events themselves.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from meds.schema import DataSchema, data_subdirectory

from hymate.data.checks import events, rules
from hymate.data.checks.clock import Clock
from hymate.data.checks.event_files import PIECE_ROWS, ParquetFile, examples, read_pieces
from hymate.data.checks.findings import Finding, Findings
from hymate.data.checks.labels import TaskLabels, check_labels, read_label_sets
from hymate.data.checks.rules import Severity
from hymate.data.checks.schema import check_columns, check_dataset_metadata
from hymate.data.checks.summary import (
    Summary,
    subjects_per_split,
    summarise_codes,
    summarise_task,
    time_range,
)
from hymate.data.checks.tables import check_codes, check_splits
from hymate.data.checks.tallies import CodeTally, RunningTotal
from hymate.data.meds import LABELS, MedsDataset
from hymate.data.meds_files import EVENT_SCHEMA
from hymate.errors import InputFault

Progress = Callable[[int, int], None]
"""Called with (rows read, rows in all)."""

SHOWN_CODES = 25


@dataclass(frozen=True)
class CheckReport:
    """What was found and what the data set holds."""

    summary: Summary
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(found for found in self.findings if found.rule.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(found for found in self.findings if found.rule.severity is Severity.WARNING)


def check_dataset(
    root: Path,
    *,
    labels: Path | None = None,
    now: dt.datetime | None = None,
    shown_codes: int = SHOWN_CODES,
    progress: Progress | None = None,
    piece_rows: int = PIECE_ROWS,
) -> CheckReport:
    """Check the MEDS data set in `root` against every rule of `hymate.data.checks.rules`.

    Args:
        labels: folder of the label sets, one folder per task; `root/labels` when None.
        now: what counts as now (no time zone); this moment when None.
        shown_codes: codes in the summary, those most subjects have; 0 for all.
        progress: told after each piece.
        piece_rows: rows read at once: memory, never the result, depends on it.

    Raises:
        InputFault: a folder is missing or holds no MEDS data set, a file is no readable parquet.
    """
    dataset = MedsDataset.open(root)
    if labels is not None and not labels.is_dir():
        raise InputFault(labels, "no such folder", "give the folder of the label sets, one folder per task")
    findings = Findings()
    files = [ParquetFile.open(path, root) for path in dataset.data_files()]
    check_dataset_metadata(root, findings)
    label_sets = read_label_sets(labels or root / LABELS, labels.parent if labels else root, findings)
    pass_over = _read_events(files, label_sets, now or dt.datetime.now(), findings, progress, piece_rows)
    subjects = _one_row_per_subject(pass_over.subjects, files, findings)
    codes = pass_over.codes.table()
    units = check_codes(root, codes.select("code", "events"), findings)
    splits = check_splits(root, subjects, findings)
    for each in label_sets:
        check_labels(each, subjects, splits if len(splits) else None, findings)
    first, last = time_range(subjects)
    summary = Summary(
        name=_name(dataset),
        files=len(files),
        events=sum(file.rows for file in files),
        static=pass_over.static,
        subjects=len(subjects),
        first=first,
        last=last,
        splits=subjects_per_split(subjects, splits),
        listed_without_events=len(splits.join(subjects, on="subject_id", how="anti")),
        stays=pass_over.stays,
        tasks={each.task: summarise_task(each, splits) for each in label_sets},
        codes_in_events=len(codes),
        codes=summarise_codes(codes, units, len(subjects), pass_over.stays, shown_codes),
    )
    return CheckReport(summary, findings.sorted())


@dataclass
class _Pass:
    """What one pass over the events leaves behind."""

    codes: CodeTally
    stays: int
    subjects: list[pl.DataFrame]
    """Per file: the columns of `events.subjects_of` and `index`, the file's position."""
    static: int = 0


def _read_events(
    files: list[ParquetFile],
    label_sets: list[TaskLabels],
    now: dt.datetime,
    findings: Findings,
    progress: Progress | None,
    piece_rows: int,
) -> _Pass:
    keys = [each.table.select("subject_id", "prediction_time") for each in label_sets]
    stays = pl.concat(keys).unique() if keys else _NO_STAYS
    result = _Pass(CodeTally(stays), len(stays), [])
    clock = Clock(now)
    total, done = sum(file.rows for file in files), 0
    if not total:
        findings.add(rules.NO_EVENTS, data_subdirectory)
    for index, file in enumerate(files):
        if not check_columns(file, DataSchema, findings, tuple(EVENT_SCHEMA)):
            done += file.rows
            continue
        contiguity = events.Contiguity(file)
        members = RunningTotal(["subject_id"], events.SUBJECT_TOTALS)
        for rows in read_pieces(file, piece_rows):
            piece = events.check_nulls(rows, file, findings)
            contiguity.check(piece, findings)
            events.check_order(piece, file, findings)
            events.check_duplicates(piece, file, findings)
            events.check_finite(piece, file, findings)
            clock.check(piece, file, findings)
            subjects = events.subjects_of(piece)
            events.check_lifetime(piece, subjects, file, findings)
            members.add(subjects)
            result.static += piece["time"].null_count()
            result.codes.add(piece)
            done += len(rows)
            if progress:
                progress(done, total)
        gathered = members.total()
        if gathered is not None:
            result.subjects.append(gathered.sort("row").with_columns(index=pl.lit(index, pl.UInt32)))
    clock.finish(findings)
    return result


_NO_STAYS = pl.DataFrame(schema={"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")})
_SUBJECTS: dict[str, type[pl.DataType] | pl.DataType] = {
    "subject_id": pl.Int64,
    "row": pl.Int64,
    **dict.fromkeys(("first", "last", "birth", "death"), pl.Datetime("us")),
    "index": pl.UInt32,
}


def _one_row_per_subject(
    parts: list[pl.DataFrame], files: list[ParquetFile], findings: Findings
) -> pl.DataFrame:
    """All subjects with `first`, `last` and `file`; those of two files are reported in the later one."""
    table = pl.concat(parts) if parts else pl.DataFrame(schema=_SUBJECTS)
    names = pl.DataFrame({"index": range(len(files)), "file": [file.name for file in files]})
    table = table.join(names.cast({"index": pl.UInt32}), on="index", how="left", maintain_order="left")
    table = table.with_columns(home=pl.col("file").first().over("subject_id"))
    again = table.filter(~pl.col("subject_id").is_first_distinct())
    again = again.with_columns(value=pl.format("also in {}", "home"))
    for (index,), found in again.group_by("index", maintain_order=True):
        file = files[int(str(index))]
        findings.add(rules.SUBJECT_IN_TWO_FILES, file.name, count=len(found), examples=examples(file, found))
    return table.group_by("subject_id", maintain_order=True).agg(
        pl.col("first").min(), pl.col("last").max(), pl.col("file").first()
    )


def _name(dataset: MedsDataset) -> str:
    try:
        return dataset.name
    except InputFault:  # already among the findings
        return dataset.root.name
