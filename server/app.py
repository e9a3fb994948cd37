"""Flower ServerApp of a study: run the phases in order, write the run directory, say how it ended."""

from __future__ import annotations

import contextlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.joining_protocol import DescribeRequest
from hymate.report.content import Report
from hymate.report.page import render_page
from hymate.report.run_directory import PAGE, FinishedRun
from server.detail import agreed_detail
from server.exchange import Clock
from server.failure import StudyFailure
from server.generalisation import generalise
from server.journal import METRICS, PARTICIPATION, Journal, write_status
from server.participation import ParticipationConfig
from server.phases import agree_vocabulary, describe
from server.recalibration import recalibrate
from server.report.figures import Outcome, build_report
from server.resume import only_one
from server.rounds import Federation
from server.run import open_run
from server.scoring_phases import evaluate
from server.short_waits import shorten_waits
from server.study import StudyConfig, dump_study, load_study
from server.training_phases import train

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or go on with, the study whose run directory the run config names."""
    shorten_waits()
    conduct(grid, Path(str(context.run_config["run"])), int(context.run_config["sites"]))


def conduct(grid: Grid, folder: Path, expected_sites: int, clock: Clock | None = None) -> None:
    """Run, or go on with, the study in `folder`; its `status.json` says how it ended."""
    with only_one(folder):
        try:
            run_study(grid, load_study(folder / "study.yaml"), folder, expected_sites, clock)
        except BaseException as fault:
            with contextlib.suppress(OSError):  # a full disk is a cause, too
                write_status(folder, "failed", cause_of(fault))
            raise
        write_status(folder, "finished")


def run_study(
    grid: Grid, study: StudyConfig, folder: Path, expected_sites: int, clock: Clock | None = None
) -> None:
    """All six phases, from wherever the run directory's last checkpoint says the study stands."""

    def federation_of(journal: Journal) -> Federation:
        asked = DescribeRequest(task=study.task, noisy=study.noisy_counts)
        named = identities(folder)
        return Federation(grid, rules_of(study), journal, expected_sites, asked, named, clock)

    run = open_run(study, folder, federation_of)
    federation, journal = run.federation, run.journal
    federation.attendance.wait_for_nodes()
    run.begin("describe")
    describe(run)
    run.begin("vocabulary")
    agreement = agree_vocabulary(run)
    vocabulary = agreement.vocabulary
    trained = train(run, vocabulary)
    tuned = trained.tuned
    run.begin("evaluate")
    held_out = evaluate(run, vocabulary, tuned)
    for name, told in held_out.items():
        figures = {"auroc": told.auroc, "auprc": told.auprc}
        journal.metric("evaluate", "site", site=name, round=tuned.best_round, **figures)
    detail = agreed_detail(study, tuned.tuning)
    recalibrated = recalibrate(run, vocabulary, tuned, detail, held_out)
    beside = generalise(run, agreement, trained, detail, held_out)

    journal.metric("report", "began")
    report = build_report(
        Outcome(
            study=study,
            descriptions=federation.descriptions,
            vocabulary=vocabulary,
            statistics=agreement.statistics,
            prepared=federation.prepared,
            held_out=held_out,
            generalisation=beside,
            finetune_rounds=tuned.rounds,
            best_round=tuned.best_round,
            participation=_lines(folder / PARTICIPATION),
            timings=run.clock.seconds,
            versions=_versions(),
            detail=detail,
            recalibrated=recalibrated,
            standings=federation.roster.standings,
        )
    )
    write_text(folder / "report.json", json.dumps(report, indent=2))
    shown = FinishedRun(Report.model_validate(report), _lines(folder / METRICS), dump_study(study))
    write_text(folder / PAGE, render_page(shown))
    journal.metric("report", "written")
    journal.close()


def rules_of(study: StudyConfig) -> ParticipationConfig:
    """`participation:` with the sites that `federation:` marks as required."""
    marked = (
        [name for name, site in study.federation.sites.items() if site.required] if study.federation else []
    )
    required = tuple(dict.fromkeys([*study.participation.required, *marked]))
    return study.participation.model_copy(update={"required": required})


def identities(folder: Path) -> dict[int, str] | None:
    """Node id -> site name of a deployment, as `sites.json` of the run directory says; else None."""
    path = folder / "sites.json"
    if not path.is_file():
        return None
    return {int(node): str(name) for node, name in json.loads(path.read_text(encoding="utf-8")).items()}


def cause_of(fault: BaseException) -> str:
    """Why the study ended, in one line."""
    if isinstance(fault, InputFault | StudyFailure):
        return str(fault)
    if isinstance(fault, OSError) and fault.strerror:
        return f"{fault.filename or 'the run directory'}: {fault.strerror}"
    return f"{type(fault).__name__}: {fault}"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _versions() -> dict[str, str]:
    packages = ("hymate-federated", "flwr", "ray", "torch", "opacus", "polars", "meds", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
