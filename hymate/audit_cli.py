"""`hymate audit`: what a model, and the updates it is made from, give away of the people behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hymate.command_options import Model, Split, notes_console

if TYPE_CHECKING:
    from hymate.train.alone import Progress


def register(app: typer.Typer) -> None:
    """Add the command to `hymate`."""
    app.command()(audit)


def audit(
    model: Model,
    members: Annotated[
        Path,
        typer.Option(
            "--members", help="MEDS data set with people the model was trained on.", show_default=False
        ),
    ],
    non_members: Annotated[
        Path,
        typer.Option(
            "--non-members",
            help="MEDS data set with people it never saw; may be the same, for the splits differ.",
            show_default=False,
        ),
    ],
    member_splits: Annotated[
        list[Split] | None,
        typer.Option("--member-split", help="Who of --members; may be repeated.  [default: train]"),
    ] = None,
    non_member_splits: Annotated[
        list[Split] | None,
        typer.Option(
            "--non-member-split", help="Who of --non-members; may be repeated.  [default: held_out]"
        ),
    ] = None,
    shadow: Annotated[
        int, typer.Option("--shadow", min=0, help="Shadow models of the likelihood-ratio attack; 0: none.")
    ] = 0,
    shadow_epochs: Annotated[
        int, typer.Option("--shadow-epochs", min=1, help="Epochs of a shadow model, at most.")
    ] = 30,
    probe: Annotated[
        int, typer.Option("--probe", min=0, help="Updates of each kind that are probed; 0: none.")
    ] = 10,
    noise: Annotated[
        float, typer.Option("--noise", min=1e-3, help="Noise multiplier of the probed updates with noise.")
    ] = 1.0,
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon",
            min=0.0,
            help="What the ledger says (`hymate-client ledger`).  [default: as report.json has it]",
            show_default=False,
        ),
    ] = None,
    delta: Annotated[float, typer.Option("--delta", min=0.0, max=0.5, help="Delta of every epsilon.")] = 1e-5,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Resamples of people behind the AUC's interval.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of halves, draws and resamples.")] = 0,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            help="Folder that keeps shadow models.  [default: audit/ in --model]",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--json", help="File for all figures, as one JSON object.", show_default=False),
    ] = None,
) -> None:
    """Attack a model: can one tell who was in its training data, and what does an update give away?

    Example:

        hymate audit --model runs/first --members cohort/hospital_1 --non-members cohort/hospital_1

    compares the people in split train, whom the model learned from, with those in split held_out. With
    --shadow 8 a stronger attack is added, which trains eight models on random halves of these people; killed,
    the same command goes on where it was.

    People of another hospital differ from the members in more than membership, and the attacks cannot tell
    why a loss is low: choose non-members from the same house, drawn at random.

    **What may leave the hospital:** the figures; they are of groups. See docs/privacy.md.
    """
    from hymate.audit import audit as auditing
    from hymate.audit.people import Group, people_of
    from hymate.audit.shadows import ShadowSettings
    from hymate.audit.words import in_words
    from hymate.durable import write_text
    from hymate.evaluate.bootstrap import BootstrapSettings
    from hymate.train.saved_model import load_model

    saved = load_model(model)
    finetune = auditing.finetuning_of(model)
    shadows = None
    if shadow:
        shadows = ShadowSettings(shadow, auditing.shadow_training(finetune, shadow_epochs), seed)
        shadows.demand_even()
    claim = auditing.claim_of(model) if epsilon is None else auditing.Claim(epsilon, "as given")
    settings = auditing.AuditSettings(
        shadows, probe, noise, delta, BootstrapSettings(bootstrap, seed=seed), seed
    )
    notes = notes_console()
    inside = Group(members, tuple(member_splits or (Split.train,)))
    outside = Group(non_members, tuple(non_member_splits or (Split.held_out,)))
    with people_of(saved, inside, outside) as people, notes.status("auditing") as status:

        def tell(number: int, progress: Progress | None) -> None:
            if progress is None:
                notes.print(f"shadow model {number} of {shadow} is trained")
            else:
                status.update(f"shadow model {number} of {shadow}: epoch {progress.round}/{progress.rounds}")

        found = auditing.audit(saved, people, finetune, settings, work or model / "audit", claim, tell)
    if file is not None:
        write_text(file, json.dumps(found.to_json(), indent=1) + "\n")
    for line in in_words(found):
        typer.echo(line)
    if file is not None:
        notes.print(f"written: {file}")
