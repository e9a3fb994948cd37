"""`hymate-simulate`: the same study file, every hospital on this machine, through Flower's Ray engine."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from hymate.data.meds import MedsDataset
from hymate.durable import write_text
from hymate.errors import InputFault
from server.journal import STATUS, read_status
from server.launch import SuperLink, superlink
from server.named_sites import demand_named_sites
from server.resume import refuse_unfinished, roll_back
from server.rounds import StudyFailure
from server.study import SimulationConfig, StudyConfig, dump_study

Report = dict[str, Any]
POLL_S = 0.3
GRACE_S = 5.0
"""How long the study's process may be unseen before we ask Flower what became of it."""


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
            "study", "has no `simulation:` section", "say where the hospitals come from; see deploy/configs/"
        )
    if resume and (out / "study.yaml").is_file():
        if read_status(out) == "finished":
            say("this study has finished already")
            return _report(out)
        for line in roll_back(out, study):
            say(line)
        write_text(out / "study.yaml", dump_study(study))
        sites = sorted(path.parent.name for path in out.glob("sites/*/site.yaml"))
    else:
        if resume:
            say("there is no run to go on with yet: beginning one")
        refuse_unfinished(out)
        sites = lay_out_run(study, study.simulation, out)
    workers = min(study.simulation.workers or os.cpu_count() or 1, len(sites))
    with superlink(out / "superlink.log") as link:
        link.submit(
            {"run": str(out.resolve()), "sites": len(sites)},
            {
                "num-supernodes": len(sites),
                "client-resources-num-cpus": 1,
                "init-args-num-cpus": workers,
                "init-args-log-to-driver": False,
            },
        )
        _follow(link, out, on_progress)
    return _report(out)


def _report(out: Path) -> Report:
    return dict(json.loads((out / "report.json").read_text(encoding="utf-8")))


def lay_out_run(study: StudyConfig, source: SimulationConfig, out: Path) -> list[str]:
    """Make the run directory with every hospital's data and site file; returns their names in order.

    It is made beside `out` and renamed when it is whole: bad input leaves nothing behind, and an
    earlier run stays where it was.
    """
    refuse_foreign(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    clear_partial(out)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-{os.getpid()}-", dir=out.parent))
    try:
        partial.chmod(0o755)  # mkdtemp gives the owner alone access
        data = _hospital_data(source, partial / "data")
        demand_named_sites(study, data, "hospital of this simulation")
        for name, folder in sorted(data.items()):
            home = partial / "sites" / name
            home.mkdir(parents=True)
            site = {
                "name": name,
                "data": folder,
                "cache": "cache",
                "state": "state",
                "policy": {"min_cell": source.min_cell},
            }
            (home / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False), encoding="utf-8")
        (partial / "study.yaml").write_text(dump_study(study), encoding="utf-8")
        set_aside(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(data)


def clear_partial(out: Path) -> None:
    """Remove what a command that was killed while it laid out `out` has left."""
    for left in out.parent.glob(f".{out.name}.partial-*"):
        pid = left.name.rsplit("-", 2)[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def refuse_foreign(out: Path) -> None:
    """Raise `InputFault` where `out` holds something that is no run of ours."""
    if out.is_dir() and (not any(out.iterdir()) or (out / "study.yaml").is_file()):
        return
    if out.exists():
        raise InputFault(out, "exists and is not a run directory", "choose another --out")


def set_aside(out: Path) -> None:
    """Keep an earlier run under the time it began."""
    if not (out / "study.yaml").is_file():
        return
    began = time.strftime("%Y%m%dT%H%M%S", time.localtime((out / "study.yaml").stat().st_mtime))
    kept = out.with_name(f"{out.name}.{began}")
    while kept.exists():
        kept = kept.with_name(kept.name + "b")
    out.rename(kept)


def _hospital_data(source: SimulationConfig, folder: Path) -> dict[str, str]:
    """Each hospital's MEDS data set, as its site file names it: made ones lie beside the sites."""
    if source.sites is not None:
        for name, path in source.sites.items():
            MedsDataset.open(path)
            if not path.is_absolute():
                raise InputFault(
                    f"simulation.sites.{name}", f"'{path}' is not absolute", "give the whole path"
                )
        return {name: str(path) for name, path in source.sites.items()}
    if source.synthetic is not None:
        from hymate.data.synthetic import Cohort, write_cohort

        write_cohort(Cohort(source.synthetic), folder)
    elif source.physionet2012 is not None:
        from hymate.data.physionet2012 import prepare_physionet2012

        challenge = source.physionet2012
        prepare_physionet2012(Path(challenge.raw), folder, site_by=challenge.site_by, seed=challenge.seed)
    made_sites = sorted(path.parent.parent.name for path in folder.glob("*/metadata/dataset.json"))
    return {name: f"../../data/{name}" for name in made_sites}


def _follow(link: SuperLink, out: Path, on_progress: Callable[[], None]) -> None:
    """Wait for the end that the ServerApp writes down; a process that vanished is an end too."""
    last_seen = time.monotonic()
    while not (out / STATUS).is_file():
        on_progress()
        if not link.alive():
            raise StudyFailure(f"SuperLink ended: {link.last_words()}")
        if link.working():
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > GRACE_S:
            status, details = link.verdict()
            if status.startswith("finished") and not (out / STATUS).is_file():
                raise StudyFailure(f"Flower says {status}: {details or link.last_words()}")
            last_seen = time.monotonic()
        time.sleep(POLL_S)
    on_progress()
    status = json.loads((out / STATUS).read_text(encoding="utf-8"))
    if status["state"] != "finished":
        raise StudyFailure(status["cause"])
    _let_finish(link)


def _let_finish(link: SuperLink) -> None:
    """Give Flower a moment to close Ray in order; what is left after it is ended by force."""
    deadline = time.monotonic() + 20
    while link.working() and time.monotonic() < deadline:
        time.sleep(POLL_S)
