"""`hymate data ...`: from a source to one MEDS data set per site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hymate.check_cli import check

# Polars takes a while to import: only a command that runs pays for it, not `--help`.

data = typer.Typer(
    help="Make MEDS data sets, one folder per site: data/, metadata/, labels/.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
data.command()(check)

Out = Annotated[
    Path,
    typer.Option(
        "--out",
        help="Folder to make; one folder per site inside. Appears whole or not at all.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the splits (and of the synthetic draws).")]
Force = Annotated[bool, typer.Option("--force", help="Replace an older output of `hymate data`.")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object and nothing else.")]


@data.command()
def physionet2012(
    raw: Annotated[
        Path,
        typer.Option(
            "--raw",
            help="Folder with set-a, set-b, set-c (folders, .tar.gz or .zip; whichever are there) "
            "and their Outcomes-a.txt, ...",
            show_default=False,
        ),
    ],
    out: Out,
    site_by: Annotated[
        Literal["icu_type", "set", "none"],
        typer.Option(
            "--site-by", help="What makes a site: type of ICU, the challenge's set, or one for all."
        ),
    ],
    splits: Annotated[
        Literal["stratified", "protocol", "fold"],
        typer.Option(
            "--splits",
            help="stratified: 70 / 10 / 20 of each site. protocol: STraTS' split of b + c, 80 / 20. "
            "fold: one fold of a cross-validation over b + c is held out.",
        ),
    ] = "stratified",
    fold: Annotated[
        int, typer.Option("--fold", min=1, help="With --splits fold: the fold held out, 1 to --folds.")
    ] = 1,
    folds: Annotated[int, typer.Option("--folds", min=2, help="With --splits fold: how many folds.")] = 5,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Turn the PhysioNet/CinC Challenge 2012 (ICU stays, first 48 hours) into MEDS.

    Example:

        hymate data physionet2012 --raw challenge-2012 --out sites --site-by icu_type

    writes sites/coronary_care, sites/cardiac_surgery, sites/medical and sites/surgical, each with the
    labels in_hospital_mortality and length_of_stay (predicted 48 h after admission) and subjects split
    70 / 10 / 20 into train / tuning / held_out; and sites/summary.json with the figures printed.

    With --splits protocol set a, when it is there, is held_out and b + c are train / tuning 80 / 20;
    without set a those 20 are held_out, and tuning is carved from the 80 (10 % of b + c).

    Stays with at most 5 rows, exact duplicates and negative (missing) values are left out and counted.
    Get the data from https://physionet.org/content/challenge-2012.
    """
    if fold > folds:
        raise typer.BadParameter(f"--fold {fold} is more than --folds {folds}")
    from hymate.data.challenge_splits import SplitPlan
    from hymate.data.physionet2012 import prepare_physionet2012

    plan = SplitPlan(splits, seed, fold, folds)
    summary = prepare_physionet2012(raw, out, site_by=site_by, plan=plan, force=force)
    _print(summary, out, as_json)


@data.command()
def synthetic(
    out: Out,
    hospitals: Annotated[int, typer.Option("--hospitals", min=1, max=1000, help="Number of sites.")] = 4,
    stays: Annotated[int, typer.Option("--stays", min=10, help="Stays a site, one per subject.")] = 600,
    seed: Seed = 0,
    signal: Annotated[
        float,
        typer.Option(
            "--signal", min=0.0, max=10.0, help="Strength of the signal; 0: labels independent of the record."
        ),
    ] = 1.0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make up hospitals whose signal is known: for trying things out, and for tests.

    Example:

        hymate data synthetic --out cohort --hospitals 4 --stays 600 --seed 0

    writes cohort/hospital_1 to cohort/hospital_4 as MEDS with the labels in_hospital_mortality and
    length_of_stay, cohort/truth.json (best reachable AUROC, planted differences between the sites, the
    group measured less precisely) and cohort/summary.json with the figures printed. The same seed gives
    the same bytes.
    """
    from hymate.data.synthetic import generate_cohort, write_cohort

    summary = write_cohort(generate_cohort(hospitals, stays, seed, signal), out, force=force)
    _print(summary, out, as_json)


def _print(summary: dict[str, Any], out: Path, as_json: bool) -> None:
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
    for name, figures in summary["sites"].items():
        table.add_row(name, *_cells(figures))
    if len(summary["sites"]) > 1:
        table.add_section()
        table.add_row("all sites", *_cells(summary["total"]))
    console = Console(highlight=False)
    console.print(table)
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
