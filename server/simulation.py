"""`hymate-simulate`: the same study file and the same apps, every hospital answered for by Ray workers."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flwr.serverapp import Grid

from hymate.data.meds import MedsDataset
from hymate.durable import write_text
from hymate.errors import InputFault
from server.exchange import Clock
from server.failure import StudyFailure
from server.journal import read_status
from server.ray_cluster import ray_cluster
from server.resume import refuse_unfinished, roll_back
from server.simulation_layout import data_folders, lay_out_run, simulated_sites
from server.simulation_resources import choose_resources
from server.study import StudyConfig, dump_study

if TYPE_CHECKING:  # with Ray, which takes a second to import
    from server.simulated_grid import SimulatedGrid

Report = dict[str, Any]
CLIENT_APP = "client.app:app"
"""As in deploy/app: the ClientApp that hospitals run."""
LOG = "simulation.log"
"""In the run directory: what the sites' own logs would hold, and defects of ours."""


def simulate(
    study: StudyConfig,
    out: Path,
    on_progress: Callable[[], None],
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Run `study` in the run directory `out`, or go on there; returns `report.json`'s content.

    Raises `InputFault` where data or study cannot be used, `StudyFailure` where the study ended early.
    """
    if study.simulation is None:
        raise InputFault(
            f"study '{study.name}'",
            "has no `simulation:` section",
            "say where the hospitals come from; see deploy/configs/",
        )
    if resume and (out / "study.yaml").is_file():
        if read_status(out) == "finished":
            say("this study has finished already")
            return _report(out)
        for line in roll_back(out, study):
            say(line)
        write_text(out / "study.yaml", dump_study(study))
    else:
        if resume:
            say("there is no run to go on with yet: beginning one")
        refuse_unfinished(out)
        choose_resources(study.simulation, 1)  # what this machine cannot run leaves nothing behind
        lay_out_run(study, study.simulation, out)
    sites = simulated_sites(out)
    resources = choose_resources(study.simulation, len(sites))
    say(resources.told(len(sites)))
    with ray_cluster(resources, study.simulation.address) as start:
        from server.simulated_grid import SimulatedGrid, Worker

        log = out.resolve() / LOG
        limit = resources.memory_limit
        grid = SimulatedGrid(sites, resources.workers, lambda: start(Worker, CLIENT_APP, log, limit))
        with contextlib.closing(grid):
            say(_likely(study, out, len(sites), resources.workers))
            _carry(grid, out, len(sites), on_progress)
    on_progress()
    return _report(out)


def _likely(study: StudyConfig, out: Path, sites: int, workers: int) -> str:
    """What a person should know of the time, while the workers import what they need."""
    from server.simulation_estimate import estimated_seconds

    data = [path for folder in data_folders(out) for path in MedsDataset(folder).data_files()]
    minutes = estimated_seconds(study, data, sites, workers) / 60
    return f"its rounds are likely to take {max(minutes, 1):.0f} min at most, were nothing else to run here"


def _carry(grid: SimulatedGrid, out: Path, sites: int, on_progress: Callable[[], None]) -> None:
    """Run the study here; a defect of ours is a cause in one line, too, and its traceback in the log."""
    from server.app import cause_of, conduct

    def pause(seconds: float) -> None:
        on_progress()
        grid.wait(seconds)

    try:
        conduct(cast(Grid, grid), out, sites, Clock(sleep=pause))
    except StudyFailure:
        raise
    except Exception as fault:
        with (out / LOG).open("a", encoding="utf-8") as log:
            traceback.print_exception(fault, file=log)
        raise StudyFailure(cause_of(fault)) from None


def _report(out: Path) -> Report:
    return dict(json.loads((out / "report.json").read_text(encoding="utf-8")))
