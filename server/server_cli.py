"""`flower-server`: lead a study with real hospitals."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from hymate.command import EXIT_INPUT, EXIT_INTERRUPTED, run_command
from hymate.errors import InputFault

if TYPE_CHECKING:
    from rich.console import Console

    from server.deployment import Deployment, Report

NAME = "flower-server"
EXIT_TERMINATED = 128 + signal.SIGTERM

server_app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown", no_args_is_help=True
)


@server_app.callback(invoke_without_command=True)
def lead(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Study file with a `federation:` section.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; default: runs/ and the study's name. An earlier run is kept aside."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the run folder, after its last round.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, start nothing, exit with 0 or 2.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave SuperLink up afterwards, for another study.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print report.json (with --dry-run: the checks) on stdout.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one key of the study file, e.g. --set finetune.rounds=3."),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Write a commented study file and the steps into this folder.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="With --init: name or address by which sites reach the coordinator.")
    ] = "",
    site: Annotated[list[str] | None, typer.Option(help="With --init: a site's name; repeatable.")] = None,
) -> None:
    """Lead a federated study: start Flower's SuperLink, let the sites in, carry the study to its report.

    SuperLink runs with TLS and lets in only nodes whose public keys the study file names. Sites run
    `hymate-client`. No row of a patient comes here: only statistics, weights and counts.

    **Examples**

        flower-server --init my-study --host coordinator.example.org --site north --site south

        flower-server certificates --out my-study/tls --host coordinator.example.org

        flower-server --config my-study/study.yaml --dry-run

        flower-server --config my-study/study.yaml

        flower-server --config my-study/study.yaml --resume

    **Exit code** 0: the report was written, or the dry run found nothing that stops a study. 1: the
    study ended early, and the last line says why. 2: something given cannot be used, one line each.
    130, 143: stopped by Ctrl-C or SIGTERM; nothing runs any more, and `--resume` goes on.
    """
    if context.invoked_subcommand is not None:
        return
    if init is not None:
        from server.init_files import write_example

        for path in write_example(init, host, tuple(site or ())):
            typer.echo(f"wrote {path}")
        return
    if config is None:
        raise InputFault("--config", "is missing", f"name a study file, or begin with '{NAME} --init DIR'")
    code = _lead(config, out, tuple(overrides or ()), resume, dry_run, keep, as_json)
    if code:
        sys.exit(code)  # the cause was said; for typer.Exit(130) `run_command` would say "interrupted", too


@server_app.command()
def certificates(
    out: Annotated[Path, typer.Option(help="Folder for ca.crt, ca.key, server.crt and server.key.")],
    host: Annotated[
        list[str], typer.Option(help="Name or address by which sites reach the coordinator; repeatable.")
    ],
    days: Annotated[int, typer.Option(min=1, help="How long the coordinator's certificate holds.")] = 825,
) -> None:
    """Make a certificate authority and the coordinator's certificate, or renew the latter.

    Example:

        flower-server certificates --out my-study/tls --host coordinator.example.org

    An authority that is already in the folder signs again: sites then keep the ca.crt they have.
    """
    from server.certificates import make_certificates

    made = make_certificates(out, host, days)
    typer.echo(f"{made['ca.crt']}: send a copy to every site")
    typer.echo(f"{made['ca.key']}: signs certificates; keep it away from the coordinator's machine")
    typer.echo(f"{made['server.crt']}, {made['server.key']}: tls.certificate and tls.key of the study file")


def _lead(
    config: Path,
    out: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    keep: bool,
    as_json: bool,
) -> int:
    from rich.console import Console

    # Before anything of Flower is imported: it calls nobody but the sites.
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    from server.deployment import Deployment
    from server.deployment_checks import check_deployment
    from server.study import load_study

    logging.getLogger("flwr").setLevel(logging.ERROR)
    for talkative in ("httpx", "httpcore"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    study = load_study(config, overrides)
    folder = out or Path("runs") / study.name
    findings = check_deployment(study, folder, resume=resume)
    bad = [finding for finding in findings if finding.state == "fail"]
    if dry_run and as_json:
        typer.echo(json.dumps({"ok": not bad, "checks": [found.as_dict() for found in findings]}, indent=2))
    elif dry_run:
        for finding in findings:
            if finding.state != "fail":
                typer.echo(f"{finding.state:<5} {finding.line()}")
    for finding in bad:
        typer.echo(f"{NAME}: {finding.line()}", err=True)
    if bad:
        return EXIT_INPUT
    if dry_run:
        return 0
    notes = Console(stderr=True)
    for finding in findings:
        if finding.state == "warn":
            notes.print(f"warning: {finding.line()}", markup=False, highlight=False, soft_wrap=True)
    return _follow(Deployment.of(study, folder), notes, resume, keep, as_json)


def _follow(deployment: Deployment, notes: Console, resume: bool, keep: bool, as_json: bool) -> int:
    from rich.console import Console

    from server.failure import StudyFailure
    from server.progress import DeploymentProgress
    from server.report.terminal import print_report
    from server.study_view import StudyView

    study = deployment.study
    planned = {"pretrain": study.pretrain.rounds, "finetune": study.finetune.rounds}
    view = StudyView(deployment.federation.sites, planned)
    progress = DeploymentProgress(deployment.out, notes, view, resumed=resume)

    def show(report: Report) -> None:
        progress.close()
        if as_json:
            sys.stdout.write(json.dumps(report, indent=2) + "\n")
            sys.stdout.flush()
        else:
            print_report(report, Console())
        progress.say(f"Run directory: {deployment.out}")

    with _signals() as caught:
        try:
            deployment.run(progress, resume=resume, keep=keep, on_report=show)
        except StudyFailure as failure:
            progress.close()
            early = "" if deployment.finished() else "the study ended early: "  # --keep: after its end
            progress.say(f"{NAME}: {early}{failure}")
            return 1
        except KeyboardInterrupt:
            progress.close()
            if deployment.finished():  # --keep: the study itself had ended well
                return 0
            progress.say(f"{NAME}: stopped; --resume goes on after the last complete round")
            return EXIT_TERMINATED if signal.SIGTERM in caught else EXIT_INTERRUPTED
        finally:
            progress.close()
    return 0


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM become one `KeyboardInterrupt`; a second one does not disturb the clean-up."""
    caught: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) == 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """Console entry of `flower-server`; returns the exit code."""
    return run_command(server_app, NAME)


if __name__ == "__main__":
    sys.exit(main())
