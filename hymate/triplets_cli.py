"""`hymate data triplets`: a hospital's own CSV or Parquet files become a MEDS data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hymate.command_options import Json


def triplets(
    events: Annotated[
        Path,
        typer.Option("--events", help="One row an observation: CSV or Parquet.", show_default=False),
    ],
    labels: Annotated[
        Path,
        typer.Option("--labels", help="One row a prediction: CSV or Parquet.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Folder of the data set. Appears whole or not at all.", show_default=False
        ),
    ],
    task: Annotated[str, typer.Option("--task", help="Name of the label set.", show_default=False)],
    columns: Annotated[
        str,
        typer.Option(
            "--columns",
            help="What the columns of the events are called: subject=..,time=..,code=..,value=.. and, "
            "if there is one, unit=..",
            show_default="subject, time, code, value",
        ),
    ] = "subject=subject,time=time,code=code,value=value",
    label_columns: Annotated[
        str,
        typer.Option(
            "--label-columns",
            help="Those of the labels. With outcome_start=.. a label is refused whose outcome window "
            "begins at or before its prediction time.",
            show_default="subject, prediction_time, label",
        ),
    ] = "subject=subject,prediction_time=prediction_time,label=label",
    static: Annotated[
        Path | None,
        typer.Option(
            "--static", help="Characteristics: one row a subject, a column each.", show_default=False
        ),
    ] = None,
    static_columns: Annotated[
        str, typer.Option("--static-columns", help="What the subject is called there.")
    ] = "subject=subject",
    splits: Annotated[
        Path | None,
        typer.Option(
            "--splits",
            help="Columns subject and split (train, tuning, held_out). Without it 70 / 10 / 20 are drawn.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the splits drawn.")] = 0,
    units: Annotated[
        Path | None, typer.Option("--units", help="Columns code and unit.", show_default=False)
    ] = None,
    time_unit: Annotated[
        Literal["minutes", "hours", "days"] | None,
        typer.Option(
            "--time-unit",
            help="Times are numbers of these since an origin of each subject's own (first visit, birth).",
            show_default=False,
        ),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option("--time-format", help="As in strftime: '%d.%m.%Y %H:%M'.", show_default=False),
    ] = None,
    separator: Annotated[str, typer.Option("--separator", help="Between the cells of a CSV file.")] = ",",
    missing: Annotated[
        list[str] | None,
        typer.Option(
            "--missing", help="A word that means an empty cell, as NA. May be repeated.", show_default=False
        ),
    ] = None,
    skip_unknown: Annotated[
        bool,
        typer.Option("--skip-unknown", help="Leave labels of unknown subjects out instead of refusing them."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an older data set of `hymate data`, its labels included.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn tables of observations into MEDS, for hospitals that do not have it.

    Example:

        hymate data triplets --events events.csv --columns subject=pid,time=at,code=item,value=result
        --labels labels.csv --static patients.csv --out site --task in_hospital_mortality

    Text values become codes of their own (CODE//VALUE); a subject may be a number or a name: names are
    numbered, and who is who stands in site.subjects.csv, beside the data set, for its owner alone.
    """
    from hymate.data.tabular.reading import parse_columns
    from hymate.data.tabular.triplets import EVENT_ROLES, LABEL_ROLES, TripletSource, prepare_triplets

    if len(separator.encode()) != 1:
        raise typer.BadParameter(f"--separator {separator!r} is not one character")
    source = TripletSource(
        events=events,
        labels=labels,
        columns=parse_columns(columns, "--columns", EVENT_ROLES, ["unit"]),
        label_columns=parse_columns(label_columns, "--label-columns", LABEL_ROLES, ["outcome_start"]),
        static=static,
        static_subject=parse_columns(static_columns, "--static-columns", ["subject"], [])["subject"],
        splits=splits,
        units=units,
        time_unit=time_unit,
        time_format=time_format,
        separator=separator,
        missing=missing or (),
        skip_unknown=skip_unknown,
    )
    figures = prepare_triplets(source, out, task=task, seed=seed, force=force)
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        _print(figures)


def _print(figures: dict[str, Any]) -> None:
    splits = " / ".join(f"{count:,} {split}" for split, count in figures["splits"].items())
    positive = f", {figures['positive']:,} positive" if "positive" in figures else ""
    lines = [
        f"subjects: {figures['subjects']:,} ({splits})",
        f"subjects without events: {figures['subjects_without_events']:,}",
        f"events: {figures['events']:,}, characteristics: {figures['static']:,}, codes: {figures['codes']:,}",
        f"labels of {figures['task']}: {figures['labels']:,}{positive}",
        *(f"left out: {count:,} {reason}" for reason, count in figures["left_out"].items()),
        f"written: {figures['folder']}",
    ]
    if "mapping" in figures:
        lines.append(f"who is who (private, stays here): {figures['mapping']}")
    for line in lines:
        typer.echo(line)
