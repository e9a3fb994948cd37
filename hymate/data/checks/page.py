"""A check report as a page on the terminal, and as one JSON object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hymate.data.checks.findings import Example, Finding
from hymate.data.checks.rules import Severity
from hymate.data.checks.run import CheckReport
from hymate.data.checks.summary import Count, Share, Summary, TaskSummary, ValueRange

INSIDE = "for the hospital only: may name subjects"
SHARED = "without subjects, rows and small counts: may be shared"

_FILES_SHOWN = 3


def as_json(report: CheckReport, note: str) -> dict[str, Any]:
    """`note`, `errors`, `warnings`, `summary`: everything the page shows, and every file of a finding."""
    return {
        "note": note,
        "errors": [_finding_json(found) for found in report.errors],
        "warnings": [_finding_json(found) for found in report.warnings],
        "summary": asdict(report.summary),
    }


def _finding_json(found: Finding) -> dict[str, Any]:
    return {
        "check": found.rule.name,
        "severity": found.rule.severity.value,
        "file": found.file,
        "what": found.what,
        "count": found.count,
        "remedy": found.rule.remedy,
        "examples": [
            {name: value for name, value in asdict(example).items() if value is not None}
            for example in found.examples
        ],
    }


def print_page(report: CheckReport, console: Console, note: str) -> None:
    """The summary first, then warnings, then errors: the end of the output is what a person sees."""
    summary = report.summary
    _line(console, note, "bold")
    console.print()
    static = f", {_count(summary.static)} of them without a time" if summary.static else ""
    _line(
        console,
        f"{summary.name}: {_count(summary.subjects)} subjects, {_count(summary.events)} events{static}, "
        f"in {summary.files:,} file{'s' if summary.files != 1 else ''}",
    )
    if summary.first:
        _line(console, f"events from {summary.first} to {summary.last}")
    _line(console, f"subjects per split: {_splits(summary.splits)}")
    if summary.listed_without_events:
        _line(console, f"listed in a split, but without events: {_count(summary.listed_without_events)}")
    for name, task in summary.tasks.items():
        _print_task(name, task, console)
    if summary.codes:
        _print_codes(summary, console)
        hidden = summary.codes_in_events - len(summary.codes)
        if hidden:
            _line(
                console,
                f"and {hidden:,} more codes (--codes 0 lists all)"
                if note == INSIDE
                else f"and {hidden:,} more codes, those of fewer than 10 subjects among them",
            )
    for severity, findings in ((Severity.WARNING, report.warnings), (Severity.ERROR, report.errors)):
        _print_findings(findings, severity, console)
    console.print()
    _line(console, _verdict(report), "bold")


def _print_findings(findings: tuple[Finding, ...], severity: Severity, console: Console) -> None:
    """Findings of the same words under one heading; of many files the first few."""
    colour = "red" if severity is Severity.ERROR else "yellow"
    groups: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.rule.name, found.what), []).append(found)
    for (name, what), members in groups.items():
        console.print()
        head = Text(f"{severity.value}", style=colour).append(f" [{name}] {what}", style="default")
        console.print(head, soft_wrap=True)
        for found in members[:_FILES_SHOWN]:
            _line(console, f"  {found.file}{_times(found)}")
            for example in found.examples:
                _line(console, f"    {_example(example)}")
            more = found.count - len(found.examples) if isinstance(found.count, int) else 0
            if found.examples and more > 0 and found.examples[0].row is not None:
                _line(console, f"    and {more:,} more")
        if len(members) > _FILES_SHOWN:
            _line(console, f"  and in {len(members) - _FILES_SHOWN:,} more files (--json lists all)")
        _line(console, f"  do: {members[0].rule.remedy}", "dim")


def _times(found: Finding) -> str:
    return f": {found.count:,} times" if isinstance(found.count, int) and found.count != 1 else ""


def _example(example: Example) -> str:
    place = [] if example.row is None else [f"row {example.row:,} (row group {example.row_group})"]
    place += [] if example.subject is None else [f"subject {example.subject}"]
    return ": ".join([*([", ".join(place)] if place else []), *([example.value] if example.value else [])])


def _verdict(report: CheckReport) -> str:
    errors, warnings = (_kinds(found) for found in (report.errors, report.warnings))
    if errors:
        return f"{errors} kind{'s' * (errors != 1)} of error, {warnings} of warning: not fit for training yet"
    if warnings:
        kinds = f"{warnings} kind{'s' * (warnings != 1)} of warning"
        return f"no error, {kinds}: fit for training once you have read them"
    return "no error, no warning: fit for training"


def _kinds(findings: Iterable[Finding]) -> int:
    return len({(found.rule.name, found.what) for found in findings})


def _print_task(name: str, task: TaskSummary, console: Console) -> None:
    yes_no = task.kind == "boolean_value"
    kind = "yes or no" if yes_no else "a number" if task.kind else "no label that can be learned"
    columns = ("positive", "rate") if yes_no else _RANGE
    table = _table("split", ("stays", "subjects", *columns))
    for split, labels in task.splits.items():
        if yes_no:
            positives = "-" if labels.positives is None else _count(labels.positives)
            cells = [positives, _percent(labels.rate)]
        else:
            cells = _range(labels.values)
        table.add_row(split, _count(labels.stays), _count(labels.subjects), *cells)
    console.print()
    _line(console, f"task {name} ({kind})", "bold")
    console.print(table)


def _print_codes(summary: Summary, console: Console) -> None:
    stays = any(code.missing_stays is not None for code in summary.codes)
    missing = ("missing", "in stays") if stays else ("missing",)
    table = _table("code", ("unit", "events", "subjects", *missing, *_RANGE))
    for code in summary.codes:
        shares = [_percent(code.missing_subjects)] + ([_percent(code.missing_stays)] if stays else [])
        table.add_row(
            Text(code.code),
            Text(code.unit or "-"),
            _count(code.events),
            _count(code.subjects),
            *shares,
            *_range(code.values),
        )
    console.print()
    _line(console, "codes, those of most subjects first", "bold")
    console.print(table)
    text = "missing: share of subjects without the code"
    text += "; in stays: of label rows, counted up to the prediction time" if stays else ""
    _line(console, f"{text}. p1, p99: 1 % of the values lie below, above.", "dim")


def _table(first: str, columns: tuple[str, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


_RANGE = ("p1", "median", "p99", "min", "max")


def _range(values: ValueRange | None) -> list[str]:
    if values is None:
        return ["-"] * len(_RANGE)
    return [_number(figure) for figure in (values.p1, values.median, values.p99, values.min, values.max)]


def _number(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if 1000 <= abs(figure) < 1e9 else f"{figure:.4g}"


def _splits(splits: dict[str, Count]) -> str:
    return ", ".join(f"{name} {_count(count)}" for name, count in splits.items())


def _percent(share: Share) -> str:
    return "-" if share is None else share if isinstance(share, str) else f"{round(100 * share, 1):g}%"


def _count(count: Count) -> str:
    return count if isinstance(count, str) else f"{count:,}"


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
