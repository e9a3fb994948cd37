"""`hymate data label`: what is to be predicted, out of a MEDS data set and a task file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hymate.command_options import Json


def label(
    task: Annotated[
        Path,
        typer.Option("--task", help="A task file of ACES; deploy/tasks/ holds five.", show_default=False),
    ],
    meds: Annotated[
        Path, typer.Option("--meds", help="The MEDS data set: the folder of data/.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder that gets labels/NAME/.", show_default="the data set itself"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the label set.", show_default="the one in the task file"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older label set of this name.")] = False,
    as_json: Json = False,
) -> None:
    """Cut labels (deaths, long stays, readmissions) out of a MEDS data set with ACES.

    Example:

        hymate data label --task deploy/tasks/in_hospital_mortality_24h.yaml --meds mimic-meds

    writes mimic-meds/labels/in_hospital_mortality_24h/ and prints how many labels and positives each split
    has, and which events that trigger the task got none, and why.

    Needs the package es-aces: pip install '.[tasks]' in the project's folder.
    """
    from hymate.data.labelling import label_dataset

    figures = label_dataset(meds, task, out=out, name=name, force=force)
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        _print(figures)


def _print(figures: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column, justify in (("split", "left"), ("labels", "right"), ("positive", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for split, counts in figures.get("splits", {}).items():
        table.add_row(split, *_cells(counts))
    table.add_section()
    table.add_row("all", *_cells(figures))
    console = Console(highlight=False)
    console.print(table)
    missed = figures["triggers"] - figures["labels"]
    console.print(f"triggers: {figures['triggers']:,}, of which without a label: {missed:,}", markup=False)
    for reason, count in figures["left_out"].items():
        console.print(f"left out: {count:,} {reason}", markup=False)
    if figures["positive"] in (0, figures["labels"]):
        console.print("all labels are the same: nothing can be learned from them")
    console.print(f"written: {figures['folder']}", markup=False, soft_wrap=True)


def _cells(counts: dict[str, int]) -> list[str]:
    share = 100 * counts["positive"] / counts["labels"]
    return [f"{counts['labels']:,}", f"{counts['positive']:,} ({share:.0f}%)"]
