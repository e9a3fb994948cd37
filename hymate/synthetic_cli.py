"""`hymate data synthetic`: hospitals made up on a known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hymate.command_options import Json
from hymate.site_table import print_sites


def synthetic(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder to make; one folder per site inside. Appears whole or not at all.",
            show_default=False,
        ),
    ],
    hospitals: Annotated[
        int | None,
        typer.Option("--hospitals", min=1, max=1000, help="Number of sites; 4 where nothing is said."),
    ] = None,
    stays: Annotated[
        int | None, typer.Option("--stays", min=10, help="Stays a site, one per subject; 600.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of every draw; 0.")] = None,
    signal: Annotated[
        float | None,
        typer.Option(
            "--signal",
            min=0.0,
            max=10.0,
            help="Strength of the signal; 1. 0: labels independent of the record.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="YAML file with the keys above: what a study has under simulation.synthetic.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One key of those above; may be given again."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older output of `hymate data`.")] = False,
    as_json: Json = False,
) -> None:
    """Make up hospitals whose truth is known: for trying things out, and for tests.

    Examples:

        hymate data synthetic --out cohort --hospitals 4 --stays 600 --seed 0

        hymate data synthetic --out shifted --hospitals 20 --set base=alike --set covariate_shift=1

    writes cohort/hospital_1 ... as MEDS, cohort/truth.json (the AUROC that the true risk reaches, per
    hospital, task and group; what was planted), cohort/truth/TASK.parquet (the true risk of every stay)
    and cohort/summary.json. No file of a hospital holds any of the truth. The same seed gives the same
    bytes, and hospital 17 of 20 is hospital 17 of 1,000.

    Keys, each a switch that is off unless it is set:

    | key | what it plants |
    |---|---|
    | base=alike | takes away the mild differences that hospitals have by default |
    | sizes.distribution | lognormal, zipf or list (with sizes.each) instead of equal |
    | tasks | also long_stay, readmission_30d, phenotype_..., deterioration: a list as [a, b] |
    | signals.TASK, long_stay_days | another signal for one task; what is a long stay |
    | covariate_shift, label_shift, concept_shift | other patients, base rates, coefficients; 1 is strong |
    | coverage_gaps | chance that a hospital never measures a code |
    | unit_errors.share, .declared | codes reported in another unit, said or not said |
    | clocks.duplicated_rows, .shifted_share, .shifted_hours, .time_zone | rows twice, clocks off |
    | severe_missing | the sicker, the more is missing |
    | observations.factor, .spread, .long_share, .long_count | how many triplets a stay has |
    | demographics=full | also type of unit and insurance |
    | disparity.group, .noise, .missing, .label_bias | one group measured worse, or its labels overlooked |
    | decoys | codes of pure noise |
    | observer=true | also the risk that a perfect observer of the record would state |
    """
    from hymate.config import load_yaml, parse
    from hymate.data.synthetic import Cohort, SyntheticConfig, write_cohort
    from hymate.overrides import apply_overrides

    content = {} if config is None else load_yaml(config)
    given = {"hospitals": hospitals, "stays": stays, "seed": seed, "signal": signal}
    content |= {key: value for key, value in given.items() if value is not None}
    apply_overrides(content, overrides or [])
    made = parse(SyntheticConfig, content, config or "--set")
    print_sites(write_cohort(Cohort(made), out, force=force), out, as_json)
