"""`hymate data ...`: from a source to one MEDS data set per site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hymate.check_cli import check
from hymate.command_options import Json
from hymate.label_cli import label
from hymate.site_table import print_sites
from hymate.synthetic_cli import synthetic
from hymate.triplets_cli import triplets

# Polars takes a while to import: only a command that runs pays for it, not `--help`.

data = typer.Typer(
    help="Make MEDS data sets, one folder per site: data/, metadata/, labels/.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
data.command()(check)
data.command()(label)
data.command()(triplets)
data.command()(synthetic)

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
    labels in_hospital_mortality, length_of_stay, saps_i, sofa, survival and death_recorded (predicted
    48 h after admission) and subjects split 70 / 10 / 20 into train / tuning / held_out; and
    sites/summary.json with the figures printed.

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
    print_sites(summary, out, as_json)
