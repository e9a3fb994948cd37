"""`hymate-simulate`: a whole study on this machine, one simulated hospital beside the other."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from hymate.command import EXIT_INTERRUPTED, run_command

simulate_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@simulate_app.command()
def simulate(
    config: Annotated[
        Path | None,
        typer.Option(help="Study file. Without one, the embedded demo: four synthetic hospitals."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run directory; default: runs/ and the study's name. A finished run there is kept aside."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in the run directory from its last complete round."
        ),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one key of the study file, e.g. --set finetune.rounds=3."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print report.json on stdout instead of a table.")
    ] = False,
) -> None:
    """Run a federated study with every hospital simulated on this machine, or on a Ray cluster.

    The hospitals describe their data, agree on a vocabulary, pretrain and fine-tune one HyMaTE model
    together, and score it on each hospital's held-out stays. No row leaves a hospital's process.

    **Examples**

        hymate-simulate

        hymate-simulate --config deploy/configs/physionet2012.yaml

        hymate-simulate --config my-study.yaml --out runs/try-2 --set seed=1 --json

        hymate-simulate --config my-study.yaml --resume

    **After a crash** (or Ctrl-C, or a full disk) `--resume` goes on where the last complete round left off;
    the model comes out the same, bit for bit, as if nothing had happened. Where there is no run yet it
    begins one, so a job that is restarted may always pass it.

    **What comes out**: the run directory, with report.html and report.json (every figure), model/
    (weights, config, vocabulary), metrics.jsonl, participation.jsonl, checkpoints/ and tensorboard/.

    Exit code 0: the report was written. 1: the study ended early, and the last line says why.
    2: something given cannot be used, and the line says what to change.
    """
    from importlib.resources import as_file, files

    from rich.console import Console

    from server.failure import StudyFailure
    from server.progress import Progress
    from server.report.terminal import print_report
    from server.simulation import simulate as run_simulation
    from server.study import load_study

    # A clean stop for `docker stop` and schedulers too: everything started here is ended in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    if config is None and resume and out is not None and (out / "study.yaml").is_file():
        study = load_study(out / "study.yaml", tuple(overrides or ()))
    elif config is None:
        with as_file(files("deploy") / "configs" / "demo.yaml") as demo:
            study = load_study(demo, tuple(overrides or ()))
    else:
        study = load_study(config, tuple(overrides or ()))
    folder = out or Path("runs") / study.name
    notes = Console(stderr=True)

    def say(line: str) -> None:
        notes.print(line, markup=False, highlight=False, soft_wrap=True)

    progress = Progress(folder, notes, resumed=resume)
    try:
        report = run_simulation(study, folder, progress, resume=resume, say=say)
    except StudyFailure as failure:
        progress.close()
        say(f"hymate-simulate: the study ended early: {failure}; --resume goes on from where it stands")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        progress.close()
        say("hymate-simulate: stopped; --resume goes on after the last complete round")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        progress.close()
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        print_report(report, Console())
    say(f"Run directory: {folder}")


def main() -> int:
    """Console entry of `hymate-simulate`; returns the exit code."""
    return run_command(simulate_app, "hymate-simulate")


if __name__ == "__main__":
    sys.exit(main())
