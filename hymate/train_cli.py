"""`hymate train`, `hymate predict`, `hymate evaluate`: one site from its data to figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hymate.command_options import Data, Json, Model, Split, notes_console

if TYPE_CHECKING:
    from rich.console import Console

# torch and polars take a while to import: only a command that runs pays for it, not `--help`.

Resamples = Annotated[
    int, typer.Option("--bootstrap", min=0, help="Resamples of subjects behind the intervals; 0: none.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `hymate`."""
    for command in (train, predict, evaluate):
        app.command()(command)


def train(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Training file (YAML). With --resume: not needed.", show_default=False),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            help="Folder of a MEDS data set; several are pooled.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run directory; default: runs/ and the training's name.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the training in --out; where there is none, start it."),
    ] = False,
    pretrained: Annotated[
        Path | None,
        typer.Option(
            "--pretrained", help="Fine-tune the pretrained weights of this earlier run.", show_default=False
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change one key of the training file, e.g. --set finetune.rounds=3.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train on one data set, or several pooled: pretrain, fine-tune, evaluate. No federation.

    Example:

        hymate data synthetic --out cohort --hospitals 1

        hymate train --config deploy/configs/train.yaml --data cohort/hospital_1 --out runs/first

    writes the run directory: model/ (weights, config, vocabulary), report.json (every figure),
    predictions/, metrics.jsonl, tensorboard/, pretrained/ (for --pretrained) and checkpoints/.

    Killed at any point, the same command with --resume goes on from the last complete round and ends
    with the same weights, bit for bit. An earlier training in --out is never overwritten, and goes on
    under its own configuration only; a finished one just prints its figures again.
    """
    import signal

    from rich.console import Console

    from hymate.errors import InputFault
    from hymate.train import centralised
    from hymate.train.config import load_train_config
    from hymate.train.progress import Display
    from hymate.train.run import RunFolder

    # A scheduler's stop ends as Ctrl-C does: in one line.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config is not None:
        wanted = load_train_config(
            config, tuple(overrides or ()), data=tuple(data or ()), pretrained=pretrained
        )
        out = out or Path("runs") / wanted.name
    elif not (resume and out) or data or overrides or pretrained:
        raise InputFault("--config", "is missing", "give it; or only --out RUN --resume, to go on as begun")
    run = RunFolder(out)
    if run.started and not resume:
        state = "finished" if run.finished else "unfinished"
        raise InputFault(
            out, f"holds a training ({state})", "go on with it by --resume, or give another --out"
        )
    notes = Console(stderr=True)
    with Display(notes) as display:
        if config is not None:
            with notes.status("reading the data"):
                centralised.start(out, wanted)
        try:
            report = centralised.train(run, display)
        except KeyboardInterrupt:
            display.note(f"stopped; 'hymate train --out {out} --resume' goes on")
            raise
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print_training(report)
    notes.print(f"Run directory: {out}", highlight=False, markup=False, soft_wrap=True)


def predict(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.", show_default=False)],
    task: Annotated[
        str, typer.Option("--task", help="Label set that names the stays; default: the one learned.")
    ] = "",
    split: Annotated[
        list[Split] | None,
        typer.Option("--split", help="Only stays of this split; may be repeated.", show_default="all"),
    ] = None,
    prediction_times: Annotated[
        Path | None,
        typer.Option(
            "--prediction-times",
            help="File (parquet or CSV) of subject_id and prediction_time that names the stays: then no "
            "labels are needed.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, max=1.0, help="predicted_boolean_value from here on.")
    ] = 0.5,
) -> None:
    """Predict with a trained model, in the format of MEDS-evaluation.

    Example:

        hymate predict --model runs/first --data cohort/hospital_2 --split held_out --out predictions.parquet

    writes subject_id, prediction_time, predicted_boolean_probability, predicted_boolean_value
    (probability >= --threshold) and, where known, the label as boolean_value. A stay with too few
    observations in the model's window gets no row, and is counted.

    Of a model of several labels --out is a folder, with one such file a label; of a number the columns
    are predicted_float_value and float_value.
    """
    from hymate.train.prediction import predict as run_model
    from hymate.train.prediction import write_tables
    from hymate.train.saved_model import load_model

    done = run_model(
        load_model(model),
        data,
        task=task,
        splits=tuple(split or ()),
        times=prediction_times,
        threshold=threshold,
    )
    write_tables(out, done.tables)
    notes = notes_console()
    for reason, count in done.left_out.items():
        notes.print(f"no prediction for {count:,} stays: {reason}")
    if done.unknown_codes:
        code, count = max(done.unknown_codes.items(), key=lambda entry: entry[1])
        notes.print(
            f"{len(done.unknown_codes)} codes are unknown to the model and were not used "
            f"({sum(done.unknown_codes.values()):,} observations; most often {code}: {count:,})"
        )
    stays = len(next(iter(done.tables.values())))
    notes.print(f"written: {out} ({stays:,} predictions{' of each label' * (len(done.tables) > 1)})")


def evaluate(
    predictions: Annotated[
        Path,
        typer.Option("--predictions", help="File that `hymate predict` wrote.", show_default=False),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Folder of MEDS label files (DATA/labels/TASK), or a MEDS data set; default: the labels in "
            "the predictions.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="Label set, where --labels is a data set with several.")
    ] = "",
    bootstrap: Resamples = 1000,
    confidence: Annotated[
        float, typer.Option("--confidence", min=0.01, max=0.999, help="Share of resamples in an interval.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the resamples.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure predictions against labels: how well they rank, and how true the probabilities are.

    Example:

        hymate evaluate --predictions predictions.parquet --labels north/labels/in_hospital_mortality

    prints AUROC, average precision, the trapezoidal area under the precision-recall curve, min(Se, +P),
    Brier score, expected calibration error, calibration slope and intercept, each with a bootstrap
    interval over subjects. Where a class is missing it says so, and gives no figure.
    """
    from rich.console import Console

    from hymate.evaluate.bootstrap import BootstrapSettings
    from hymate.evaluate.scoring import evaluate_predictions

    scored = evaluate_predictions(
        predictions, labels, task=task, bootstrap=BootstrapSettings(bootstrap, confidence, seed)
    )
    if as_json:
        content = {
            **scored.report.to_json(),
            "predictions_without_label": scored.predictions_without_label,
            "labels_without_prediction": scored.labels_without_prediction,
        }
        typer.echo(json.dumps(content, indent=2))
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    _print_figures(console, scored.report.to_json(), "")
    for count, what in (
        (scored.predictions_without_label, "predictions have no label"),
        (scored.labels_without_prediction, "labels have no prediction"),
    ):
        if count:
            console.print(f"not counted: {count:,} {what}")


def _print_training(report: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    tuned = report["finetuning"]
    console.print(
        f"{report['pretraining']['epochs']} epochs of pretraining, {tuned['epochs']} of fine-tuning; kept: "
        f"after {tuned['best_epoch']} (by {tuned['criterion']} on {tuned['tuning']['stays']:,} tuning stays)"
    )
    for split, figures in report["evaluation"].items():
        for name, each in figures.get("labels", {"": figures}).items():
            _print_figures(console, each, f"{split}: {name + ', ' if name else ''}")


def _print_figures(console: Console, report: dict[str, Any], title: str) -> None:
    """The figures of one `Report.to_json`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from hymate.evaluate.figures import TITLES

    positives = f", {report['positives']:,} positive" if "positives" in report else ""
    console.print(f"{title}{report['stays']:,} stays of {report['subjects']:,} subjects{positives}")
    if report["undefined"]:
        console.print(report["undefined"])
    resamples = report["bootstrap"]["resamples"]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    if resamples:
        table.add_column(f"{100 * report['bootstrap']['confidence']:g} % interval", justify="right")
    for name, words in TITLES.items():
        if name in report:
            figure = report[name]
            interval = "-" if figure["lower"] is None else f"{figure['lower']:.3f} - {figure['upper']:.3f}"
            value = "-" if figure["value"] is None else f"{figure['value']:.3f}"
            table.add_row(words, value, *([interval] if resamples else []))
    console.print(table)
