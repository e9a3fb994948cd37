"""`hymate report`: a finished study's page anew, runs compared, the schema of report.json."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import click
import typer
from typer.core import TyperGroup


class _RebuildsByDefault(TyperGroup):
    """`hymate report RUN` is `hymate report rebuild RUN`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["rebuild", *args]
        return super().parse_args(ctx, args)


report = typer.Typer(
    cls=_RebuildsByDefault,
    help="Report of a finished study: `hymate report RUN` writes its report.html anew.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@report.command()
def rebuild(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished study.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The page that is written.  [default: RUN/report.html]", show_default=False
        ),
    ] = None,
) -> None:
    """Write report.html anew from what the run directory holds; no hospital is asked.

        hymate report runs/demo

    Beside report.json, metrics.jsonl and study.yaml it takes, where they are there, `model_card.yaml` (what
    the model is for, the team's answers to TRIPOD+AI) and `explanations/HOSPITAL/explanation.json` (what
    `hymate explain --global` wrote at a hospital). `hymate report RUN` is short for this.
    """
    from hymate.report.page import render_page
    from hymate.report.run_directory import PAGE, read_run

    _write(out or run / PAGE, render_page(read_run(run)))


@report.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories; the first is what others are compared with.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The page that is written.")] = Path("comparison.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure as JSON instead.")] = False,
) -> None:
    """Compare finished studies, hospital by hospital: differences with intervals, and which settings differ.

        hymate report compare runs/fedavg runs/scaffold

    The first run is what the others are compared with. Runs whose study files differ in name and seed alone
    count as one variant: the mean over seeds is compared, and its spread shown.
    """
    from rich.console import Console

    from hymate.report.compare import compare_runs
    from hymate.report.compare_view import print_comparison, render_comparison

    compared = compare_runs(runs)
    if as_json:
        sys.stdout.write(json.dumps(asdict(compared), indent=1) + "\n")
        return
    print_comparison(compared, Console())
    _write(out, render_comparison(compared))


@report.command()
def schema() -> None:
    """Print the JSON schema of report.json."""
    from hymate.report.schema import published_schema

    sys.stdout.write(published_schema())


def _write(path: Path, page: str) -> None:
    from hymate.durable import write_text
    from hymate.errors import InputFault

    try:
        write_text(path, page)
    except OSError as fault:
        raise InputFault(
            path, f"cannot be written: {fault.strerror}", "name another place with --out"
        ) from None
    typer.echo(f"written: {path}")
