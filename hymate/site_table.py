"""What a command that makes data sets prints at its end: one line a site, or one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

_SHOWN = 40
"""Sites in the table; a longer list is cut, and says where the rest is."""


def print_sites(summary: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print `summary` (as summary.json holds it) of the data sets written to `out`."""
    if as_json:
        typer.echo(json.dumps({"out": str(out), **summary}))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("site", no_wrap=True)
    for column in ("stays", "deaths", "observations", "median", "train/tune/held"):
        table.add_column(column, justify="right", no_wrap=True)
    sites = list(summary["sites"].items())
    for name, figures in sites[:_SHOWN]:
        table.add_row(name, *_cells(figures))
    if len(sites) > 1:
        table.add_section()
        table.add_row("all sites", *_cells(summary["total"]))
    console = Console(highlight=False)
    console.print(table)
    if len(sites) > _SHOWN:
        console.print(f"{len(sites) - _SHOWN:,} more sites: see summary.json")
    if "bayes_auroc" in summary:
        console.print(f"best reachable AUROC: {summary['bayes_auroc']:.3f}")
    for reason, count in summary.get("left_out", {}).items():
        console.print(f"left out: {count:,} {reason}", markup=False)
    console.print(f"written: {out}", markup=False, soft_wrap=True)


def _cells(figures: dict[str, Any]) -> list[str]:
    share = 100 * figures["deaths"] / figures["stays"]
    return [
        f"{figures['stays']:,}",
        f"{figures['deaths']:,} ({share:.0f}%)",
        f"{figures['observations']:,}",
        f"{figures['median_observations']:g}",
        "/".join(f"{count:,}" for count in figures["splits"].values()),
    ]
