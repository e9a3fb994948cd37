"""A report that may leave the hospital: no subject, no row, no file name, no single value, no small count.

Counts below `MIN_CELL` become "<10"; the others are rounded to tens, so that no small count can be had by
subtracting two of them. Codes of fewer subjects are left out, extremes too (each is one person's), and
of times only the year is kept.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from meds.schema import data_subdirectory

from hymate.data.checks.findings import Finding
from hymate.data.checks.run import CheckReport
from hymate.data.checks.summary import (
    CodeSummary,
    Count,
    Share,
    SplitLabels,
    Summary,
    TaskSummary,
    ValueRange,
)

MIN_CELL = 10
"""The smallest count that is shown."""


def without_identifiers(report: CheckReport) -> CheckReport:
    """`report` as it may be shared outside the hospital."""
    return CheckReport(summary=_summary(report.summary), findings=_findings(report.findings))


def shareable(count: Count) -> Count:
    """0 as it is, below 10 as "<10", else rounded to tens.

    >>> [shareable(count) for count in (0, 3, 10, 14, 16)]
    [0, '<10', 10, 10, 20]
    """
    if isinstance(count, str) or count == 0:
        return count
    return f"<{MIN_CELL}" if count < MIN_CELL else MIN_CELL * ((count + MIN_CELL // 2) // MIN_CELL)


def _findings(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """One per rule and folder: names of files may be numbers of persons."""
    counts: dict[tuple[str, str], int] = {}
    first: dict[tuple[str, str], Finding] = {}
    for found in findings:
        key = (f"{found.rule.name}/{found.what}", _folder(found.file))
        counts[key] = counts.get(key, 0) + int(found.count)
        first.setdefault(key, replace(found, file=key[1], examples=()))
    return tuple(replace(found, count=shareable(counts[key])) for key, found in first.items())


def _folder(file: str) -> str:
    """data/**, labels/<task>/**; metadata files keep their names, which MEDS gives."""
    parts = PurePosixPath(file).parts
    if parts[0] == data_subdirectory:
        return f"{data_subdirectory}/**"
    return file if parts[0] == "metadata" or len(parts) < 3 else f"{parts[0]}/{parts[1]}/**"


def _summary(summary: Summary) -> Summary:
    kept = [code for code in summary.codes if isinstance(code.subjects, int) and code.subjects >= MIN_CELL]
    return replace(
        summary,
        events=shareable(summary.events),
        static=shareable(summary.static),
        subjects=shareable(summary.subjects),
        first=summary.first[:4] if summary.first else None,
        last=summary.last[:4] if summary.last else None,
        splits={name: shareable(count) for name, count in summary.splits.items()},
        listed_without_events=shareable(summary.listed_without_events),
        stays=shareable(summary.stays),
        tasks={name: _task(task) for name, task in summary.tasks.items()},
        codes=tuple(_code(code, int(summary.subjects), int(summary.stays)) for code in kept),
    )


def _task(task: TaskSummary) -> TaskSummary:
    return TaskSummary(task.kind, {name: _labels(labels) for name, labels in task.splits.items()})


def _labels(labels: SplitLabels) -> SplitLabels:
    stays = int(labels.stays)
    rate = labels.rate
    if rate is not None and labels.positives is not None:
        smaller = min(int(labels.positives), stays - int(labels.positives))
        rate = round(rate, 2) if smaller >= MIN_CELL else None
    return SplitLabels(
        stays=shareable(labels.stays),
        subjects=shareable(labels.subjects),
        positives=None if labels.positives is None else shareable(labels.positives),
        rate=rate,
        values=_range(labels.values, stays) if int(labels.subjects) >= MIN_CELL else None,
    )


def _code(code: CodeSummary, subjects: int, stays: int) -> CodeSummary:
    return replace(
        code,
        events=shareable(code.events),
        numbers=shareable(code.numbers),
        subjects=shareable(code.subjects),
        missing_subjects=_share(code.missing_subjects, subjects),
        missing_stays=_share(code.missing_stays, stays),
        values=_range(code.values, int(code.numbers)),
    )


def _share(share: Share, total: int) -> Share:
    """A share that tells no count below `MIN_CELL`, neither of those counted nor of the others."""
    if share is None or isinstance(share, str):
        return share
    count = round(share * total)
    if 0 < count < MIN_CELL:
        return f"<{MIN_CELL}"
    return f"all but <{MIN_CELL}" if 0 < total - count < MIN_CELL else round(share, 2)


def _range(values: ValueRange | None, count: int) -> ValueRange | None:
    """Only quantiles with at least `MIN_CELL` values on their outer side."""
    if values is None or count < 2 * MIN_CELL:
        return None
    tails = count >= 100 * MIN_CELL
    return ValueRange(
        p1=values.p1 if tails else None,
        median=values.median,
        p99=values.p99 if tails else None,
        min=None,
        max=None,
    )
