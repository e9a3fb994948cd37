"""Flower ServerApp of a study: run the phases in order, write the run directory, say how it ended."""

from __future__ import annotations

import contextlib
import json
import platform
import secrets
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.protocol import AloneReply, DescribeRequest
from hymate.report.content import Report
from hymate.report.page import write_page
from hymate.report.run_directory import FinishedRun
from server.checkpoint import PHASES, Checkpoints, save_study_model
from server.detail import agreed_detail
from server.exchange import Clock
from server.journal import METRICS, PARTICIPATION, Journal, write_status
from server.participation import ParticipationConfig
from server.phase_clock import PhaseClock
from server.phases import agree_vocabulary, describe, first_model, weights_of
from server.recalibration import recalibrate
from server.report.figures import Outcome, build_report
from server.resume import only_one
from server.rounds import Federation, StudyFailure
from server.run import Run
from server.scoring_phases import evaluate, train_alone
from server.short_waits import shorten_waits
from server.study import StudyConfig, dump_study, load_study
from server.training_phases import finetune, pretrain

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or go on with, the study whose run directory the run config names."""
    shorten_waits()
    folder = Path(str(context.run_config["run"]))
    with only_one(folder):
        try:
            study = load_study(folder / "study.yaml")
            run_study(grid, study, folder, expected_sites=int(context.run_config["sites"]))
        except BaseException as fault:
            with contextlib.suppress(OSError):  # a full disk is a cause, too
                write_status(folder, "failed", _cause(fault))
            raise
        write_status(folder, "finished")


def run_study(
    grid: Grid, study: StudyConfig, folder: Path, expected_sites: int, clock: Clock | None = None
) -> None:
    """All six phases, from wherever the run directory's last checkpoint says the study stands."""
    checkpoints = Checkpoints(folder)
    last = checkpoints.last
    stands: dict[str, Any] = last.study if last else {"marks": (0, 0), "seconds": {}, "sites": {}, "run": ""}
    journal = Journal(folder, (stands["marks"][0], stands["marks"][1]))
    federation = Federation(
        grid,
        rules_of(study),
        journal,
        expected_sites,
        DescribeRequest(task=study.task),
        identities(folder),
        clock,
    )
    federation.roster.restore(stands["sites"])
    laps = PhaseClock(stands["seconds"])
    run_id = stands["run"] or secrets.token_hex(8)
    run = Run(study, folder, federation, journal, checkpoints, laps, run_id)
    for note in checkpoints.notes:
        journal.metric("resume", "note", text=note)
    if last:
        journal.metric("resume", "resumed", after=last.phase, server_round=last.number)
    federation.wait_for_nodes()

    def begin(phase: str) -> None:
        laps.begin(phase)
        done = [] if last is None else PHASES[: PHASES.index(last.phase) + (last.number == 0)]
        if phase not in done:
            journal.metric(phase, "began")

    begin("describe")
    describe(run)
    begin("vocabulary")
    agreement = agree_vocabulary(run)
    vocabulary = agreement.vocabulary
    model = first_model(study, vocabulary)
    first = weights_of(model)
    begin("pretrain")
    pretrained = pretrain(run, vocabulary, first)
    begin("finetune")
    tuned = finetune(run, vocabulary, pretrained)
    save_study_model(folder, study, vocabulary, model, tuned.weights)
    begin("evaluate")
    held_out = evaluate(run, vocabulary, tuned)
    detail = agreed_detail(study, tuned.tuning)
    recalibrated = recalibrate(run, vocabulary, tuned, detail, held_out)
    alone: dict[str, AloneReply] = {}
    if study.evaluation.local_baseline:
        begin("alone")
        alone = train_alone(run, vocabulary, first)

    journal.metric("report", "began")
    report = build_report(
        Outcome(
            study=study,
            descriptions=federation.descriptions,
            vocabulary=vocabulary,
            statistics=agreement.statistics,
            prepared=federation.prepared,
            held_out=held_out,
            alone=alone,
            finetune_rounds=tuned.rounds,
            best_round=tuned.best_round,
            participation=_lines(folder / PARTICIPATION),
            timings=laps.seconds,
            versions=_versions(),
            detail=detail,
            recalibrated=recalibrated,
            standings=federation.roster.standings,
        )
    )
    write_text(folder / "report.json", json.dumps(report, indent=2))
    shown = FinishedRun(Report.model_validate(report), _lines(folder / METRICS), dump_study(study))
    write_page(folder, shown)
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


def _cause(fault: BaseException) -> str:
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
