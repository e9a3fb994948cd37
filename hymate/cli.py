"""The command `hymate`: everything one site does by itself, without a federation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hymate.audit_cli import register as register_audit
from hymate.command import run_command
from hymate.data_cli import data
from hymate.explain_cli import register as register_explain
from hymate.report_cli import report
from hymate.train_cli import register

app = typer.Typer(
    name="hymate",
    help="HyMaTE on one site: prepare data, train, predict, evaluate; without any federation.\n\n"
    "Start with: hymate data synthetic --out cohort",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(data, name="data")
app.add_typer(report, name="report")
register(app)
register_explain(app)
register_audit(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hymate {version('hymate-federated')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the subcommand."""


def main() -> None:
    """Console entry point."""
    sys.exit(run_command(app, "hymate"))


if __name__ == "__main__":
    main()
