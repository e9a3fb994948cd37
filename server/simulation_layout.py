"""What a simulation lays out before it begins: the run directory, every hospital's data and its site file."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from hymate.config import load_yaml
from hymate.data.meds import MedsDataset
from hymate.errors import InputFault
from server.named_sites import demand_named_sites
from server.simulation_config import SimulationConfig
from server.study import StudyConfig, dump_study

OWN = {"cache": "cache", "state": "state"}
"""Where a simulated hospital keeps what it makes: in the run directory, whatever its site file says."""
TAKEN = ("policy", "threads")
"""Keys of a hospital's own site file that count in a simulation, beside its data."""


@dataclass(frozen=True)
class SimulatedSite:
    """One hospital of a simulation."""

    file: Path
    """Its site file."""
    size: int
    """Bytes of its data, one at least: until it was measured, it is expected to take in proportion to it."""


def simulated_sites(out: Path) -> list[SimulatedSite]:
    """Every site that was laid out in `out`, by name."""
    return [
        SimulatedSite(file, 1 + sum(path.stat().st_size for path in data.rglob("*.parquet")))
        for file, data in zip(_site_files(out), data_folders(out), strict=True)
    ]


def data_folders(out: Path) -> list[Path]:
    """Their data sets."""
    return [file.parent / str(load_yaml(file)["data"]) for file in _site_files(out)]


def _site_files(out: Path) -> list[Path]:
    return sorted(out.resolve().glob("sites/*/site.yaml"))


def lay_out_run(study: StudyConfig, source: SimulationConfig, out: Path) -> None:
    """Make the run directory with every hospital's data and site file.

    It is made beside `out` and renamed when it is whole: bad input leaves nothing behind, and an
    earlier run stays where it was.
    """
    refuse_foreign(out)
    absent = [folder for folder in out.resolve().parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    clear_partial(out)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-{os.getpid()}-", dir=out.parent))
    try:
        partial.chmod(0o755)  # mkdtemp gives the owner alone access
        hospitals = _hospitals(source, study.task.name, partial / "data")
        demand_named_sites(study, hospitals, "hospital of this simulation")
        for name, given in sorted(hospitals.items()):
            home = partial / "sites" / name
            home.mkdir(parents=True)
            # Made-up and public hospitals are the user's own; with a site file, that decides.
            policy = {"min_cell": source.min_cell, "share_own_model": study.evaluation.cross_site_matrix}
            site = {"policy": policy, **given, "name": name, **OWN}
            (home / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False), encoding="utf-8")
        (partial / "study.yaml").write_text(dump_study(study), encoding="utf-8")
        set_aside(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in absent:
            with contextlib.suppress(OSError):  # it holds the run now
                folder.rmdir()


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


def _hospitals(source: SimulationConfig, task: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What is given of each hospital's site file, its data set above all: made ones lie beside the sites."""
    if source.sites is not None:
        return {name: _given_site(name, path) for name, path in source.sites.items()}
    if source.synthetic is not None:
        from hymate.data.synthetic import Cohort, write_cohort

        write_cohort(Cohort(source.synthetic), folder)
    elif source.partition is not None:
        from hymate.data.partition import partition_dataset

        partition_dataset(source.partition, task, folder)
    elif source.physionet2012 is not None:
        from hymate.data.physionet2012 import prepare_physionet2012

        challenge = source.physionet2012
        prepare_physionet2012(Path(challenge.raw), folder, site_by=challenge.site_by, seed=challenge.seed)
    made = sorted(path.parent.parent.name for path in folder.glob("*/metadata/dataset.json"))
    return {name: {"data": f"../../data/{name}"} for name in made}


def _given_site(name: str, path: Path) -> dict[str, Any]:
    """A hospital that the study names: by its data set, or by its site file."""
    if not path.is_absolute():
        raise InputFault(f"simulation.sites.{name}", f"'{path}' is not absolute", "give the whole path")
    if path.suffix not in (".yaml", ".yml"):
        MedsDataset.open(path)
        return {"data": str(path)}
    given = load_yaml(path)
    if given.get("name") != name:
        raise InputFault(path, f"is the site file of '{given.get('name')}', not of '{name}'", "name it so")
    data = path.parent / str(given.get("data"))
    MedsDataset.open(data)
    return {**{key: given[key] for key in TAKEN if key in given}, "data": str(data)}
