"""`hymate data check`: is this data set fit for a study, and is it what the hospital meant?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

EXIT_FOUND = 1
"""The data has errors; 2 would mean that it could not be checked."""


def check(
    root: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A MEDS data set: the folder with data/ and metadata/."),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="DIR",
            help="Folder with one folder per task.  [default: DIR/labels]",
        ),
    ] = None,
    codes: Annotated[
        int, typer.Option("--codes", min=0, help="Codes in the summary, most frequent first; 0: all.")
    ] = 25,
    no_identifiers: Annotated[
        bool,
        typer.Option(
            "--no-identifiers",
            help="Leave out subjects, rows, single values, small counts: this output may be shared.",
        ),
    ] = False,
    now: Annotated[
        datetime | None,
        typer.Option(
            "--now", help="What counts as now, for an export of a known day.  [default: this moment]"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object (errors, warnings, summary), nothing else.")
    ] = False,
) -> None:
    """Check a MEDS data set before it joins a study, and see what it holds.

    DIR is the folder that holds data/ and metadata/ (and labels/, unless --labels names another).

    Example:

        hymate data check north-meds

    reads every event once and prints subjects, splits, stays and label rates per task, the codes with
    their missing rates and value ranges, and then what is wrong: file, row group, row, subject, value and
    what to do. An **error** is what training refuses or would learn wrongly; a **warning** can be right
    and often is not. For a report that may leave the hospital:

        hymate data check north-meds --no-identifiers --json > north.json

    Without --no-identifiers the output is for the hospital only: it may name subjects.

    Exit code 0: no errors (there may be warnings). 1: errors. 2: could not be checked.
    """
    from rich.console import Console

    from hymate.data.checks.page import INSIDE, SHARED, print_page
    from hymate.data.checks.page import as_json as to_json
    from hymate.data.checks.run import check_dataset
    from hymate.data.checks.sharing import without_identifiers

    with _progress() as progress:
        report = check_dataset(root, labels=labels, now=now, shown_codes=codes, progress=progress)
    note = INSIDE
    if no_identifiers:
        report, note = without_identifiers(report), SHARED
    if as_json:
        typer.echo(json.dumps(to_json(report, note), ensure_ascii=False))
    else:
        # A table must not be folded to 80 columns in a file.
        width = None if sys.stdout.isatty() else 160
        print_page(report, Console(highlight=False, width=width), note)
    if report.errors:
        raise typer.Exit(EXIT_FOUND)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr while events are read, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
