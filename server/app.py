"""Flower ServerApp of a study: run the phases in order, write the run directory, say how it ended."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.protocol import DescribeRequest
from server import phases
from server.checkpoint import Checkpoints, save_model
from server.journal import METRICS, PARTICIPATION, Journal, write_status
from server.report.figures import Outcome, build_report
from server.report.page import render_page
from server.rounds import Federation, StudyFailure
from server.study import StudyConfig, dump_study, load_study

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study whose run directory the run config names."""
    folder = Path(str(context.run_config["run"]))
    study = load_study(folder / "study.yaml")
    try:
        run_study(grid, study, folder, expected_sites=int(context.run_config["sites"]))
    except (InputFault, StudyFailure) as fault:
        write_status(folder, "failed", str(fault))
        raise
    except BaseException as fault:
        write_status(folder, "failed", f"{type(fault).__name__}: {fault}")
        raise
    write_status(folder, "finished")


def run_study(grid: Grid, study: StudyConfig, folder: Path, expected_sites: int) -> None:
    """All six phases; what each one needs of the ones before is passed on in plain sight."""
    journal = Journal(folder)
    federation = Federation(grid, study.participation, journal)
    run = phases.Run(study, folder, federation, journal)
    clock = _Clock()

    journal.metric("describe", "began")
    descriptions = federation.join(expected_sites, DescribeRequest(task=study.task))
    clock.lap("describe")

    journal.metric("vocabulary", "began")
    agreement = phases.agree_vocabulary(run)
    vocabulary = agreement.vocabulary
    model = phases.first_model(study, vocabulary)
    first = phases.weights_of(model)
    checkpoints = Checkpoints(folder, model)
    clock.lap("vocabulary")

    journal.metric("pretrain", "began")
    pretrained = phases.pretrain(run, vocabulary, first, checkpoints)
    clock.lap("pretrain")

    journal.metric("finetune", "began")
    tuned = phases.finetune(run, vocabulary, pretrained, descriptions, checkpoints)
    save_model(folder, study, vocabulary, model, tuned.weights)
    clock.lap("finetune")

    journal.metric("evaluate", "began")
    held_out = phases.score(run, vocabulary, tuned.weights, "held_out")
    clock.lap("evaluate")
    alone = []
    if study.evaluation.local_baseline:
        journal.metric("alone", "began")
        alone = phases.train_alone(run, vocabulary, first)
        clock.lap("alone")

    journal.metric("report", "began")
    report = build_report(
        Outcome(
            study=study,
            descriptions=descriptions,
            vocabulary=vocabulary,
            statistics=agreement.statistics,
            prepared=agreement.prepared,
            held_out={reply.site: reply.record.report for reply in held_out},
            alone={reply.site: reply.record for reply in alone},
            finetune_rounds=tuned.rounds,
            best_round=tuned.best_round,
            participation=_lines(folder / PARTICIPATION),
            timings=clock.laps,
            versions=_versions(),
        )
    )
    write_text(folder / "report.json", json.dumps(report, indent=2))
    page = render_page(report, _lines(folder / METRICS), dump_study(study))
    write_text(folder / "report.html", page)
    journal.metric("report", "written")
    journal.close()


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class _Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._began = self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.laps[phase] = round(now - self._last, 3)
        self.laps["total"] = round(now - self._began, 3)
        self._last = now


def _versions() -> dict[str, str]:
    packages = ("hymate-federated", "flwr", "ray", "torch", "opacus", "polars", "meds", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
