"""`hymate explain`: why a model says what it says, of one stay or over many."""

from __future__ import annotations

import importlib.util
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hymate.command_options import Data, Model, Split, notes_console

if TYPE_CHECKING:
    from rich.console import Console

    from hymate.evaluate.explanation.overall import OverallSettings
    from hymate.train.saved_model import SavedModel


def register(app: typer.Typer) -> None:
    """Add the command to `hymate`."""
    app.command()(explain)


def explain(
    model: Model,
    data: Data,
    subject: Annotated[
        int | None,
        typer.Option("--subject", help="Explain one stay of this subject.", show_default=False),
    ] = None,
    overall: Annotated[
        bool, typer.Option("--global", help="What matters over many stays, instead of one.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the four files.  [default: explanations/subject_ID or explanations/global]",
            show_default=False,
        ),
    ] = None,
    prediction_time: Annotated[
        datetime | None,
        typer.Option(
            "--prediction-time",
            help="Which stay of the subject; then no label is needed.  [default: the last with a label]",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str, typer.Option("--label", help="Which label, where the model learned several.", show_default=False)
    ] = "",
    split: Annotated[Split, typer.Option("--split", help="With --global: stays of this split.")] = (
        Split.held_out
    ),
    stays: Annotated[
        int, typer.Option("--stays", min=1, help="With --global: at most this many, drawn at random.")
    ] = 1000,
    bin_hours: Annotated[
        float, typer.Option("--bin-hours", min=0.1, help="With --global: length of an interval of time.")
    ] = 6.0,
    min_cell: Annotated[
        int,
        typer.Option("--min-cell", min=1, help="With --global: fewer subjects than this are never shown."),
    ] = 10,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="With --global: resamples behind the intervals.")
    ] = 1000,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="With --global: seed of the draws.", show_default=True)
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the content of explanation.json as well, nothing else.")
    ] = False,
) -> None:
    """Show what moved a model's prediction: which observations, when, and which way.

    One stay, as a picture for a clinician:

        hymate explain --model runs/first --data cohort/hospital_1 --subject 1000005

    writes explanation.html (opens anywhere, needs no network), .png, .svg and .json. Every observation has
    an attribution by integrated gradients; they add up from a reference (an average patient, measured as
    often, nothing in particular) to the prediction. Beside it: where fusion attention read. A baseline
    model without attention gets integrated gradients only, and the page says so.

    Many stays:

        hymate explain --model runs/first --data cohort/hospital_1 --global

    gives the mean absolute attribution by feature and by time, with bootstrap intervals over subjects, and
    a check: whether deleting the top features changes predictions more than deleting random ones.

    **What may leave the hospital:** the output of --subject never: it is a patient's record. The output of
    --global may: features and times seen in fewer than --min-cell subjects are left out.

    Attributions explain the model, not the patient; see docs/explain.md.
    """
    from hymate.errors import InputFault
    from hymate.train.saved_model import load_model

    if (subject is None) != overall:
        what = "are both given" if overall else "are both missing"
        raise InputFault("--subject ID and --global", what, "give one of them")
    for name in ("captum", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise InputFault(
                "hymate explain",
                f"needs {name}, which is not installed",
                "pip install '.[explain]' in the project's folder",
            )
    saved = load_model(model)
    notes = notes_console()
    if subject is not None:
        folder = out or Path("explanations") / f"subject_{subject}"
        _one(saved, data, subject, prediction_time, label, folder, as_json, notes)
        return
    from hymate.evaluate.bootstrap import BootstrapSettings
    from hymate.evaluate.explanation.overall import OverallSettings

    settings = OverallSettings(
        split, stays, bin_hours, min_cell, bootstrap=BootstrapSettings(bootstrap, seed=seed)
    )
    _many(saved, data, settings, label, out or Path("explanations") / "global", as_json, notes)


def _one(
    saved: SavedModel,
    data: Path,
    subject: int,
    when: datetime | None,
    label: str,
    out: Path,
    as_json: bool,
    notes: Console,
) -> None:
    from hymate.evaluate.explanation.local import INSIDE, explain_stay
    from hymate.evaluate.explanation.page import write_stay
    from hymate.evaluate.explanation.picture import headline
    from hymate.evaluate.explanation.stays import descriptions, stay_of

    with stay_of(saved, data, subject, when) as store:
        explained = explain_stay(saved, store, 0, label=label, described=descriptions(data))
    paths = write_stay(out, explained)
    if as_json:
        typer.echo(json.dumps(explained.to_json(), indent=1))
    says, before = headline(explained)
    notes.print(f"{says}. {before}")
    if not explained.has_attention:
        notes.print(f"model {saved.config.name} has no fusion attention: integrated gradients only")
    notes.print(f"written: {paths[-1]} and .png, .svg, .json; {INSIDE}")


def _many(
    saved: SavedModel,
    data: Path,
    settings: OverallSettings,
    label: str,
    out: Path,
    as_json: bool,
    notes: Console,
) -> None:
    from hymate.evaluate.explanation.overall import explain_overall
    from hymate.evaluate.explanation.overall_page import write_overall
    from hymate.evaluate.explanation.stays import descriptions, stays_in

    with stays_in(saved, data) as store, notes.status("attributing"):
        explained = explain_overall(saved, store, settings, label=label, described=descriptions(data))
    paths = write_overall(out, explained)
    if as_json:
        typer.echo(json.dumps(explained.to_json(), indent=1))
    else:
        for each in explained.features[:10]:
            notes.print(f"{each.importance.value:8.3f}  {each.title}")
    check = explained.check
    notes.print(
        f"without a stay's top {check.features} features the answer moves by {check.top.value:.3f} "
        f"{explained.unit}, without {check.features} random ones by {check.random.value:.3f}"
    )
    notes.print(f"written: {paths[-1]} and .png, .svg, .json; {explained.note}")
