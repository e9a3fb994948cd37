"""One run, in a process and on a core of its own: python -m benchmarks.strategies.job OUT/runs/ID.json

    pretraining   a study up to the last round of pretraining
    federated     a copy of that run directory, fine-tuned and evaluated under the row's strategy
    pooled        all sites' stays at one place, the same model, epochs and seed

Stopped at any point, the same command goes on from the last complete round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from flwr.app import Message

from benchmarks.strategies.attacks import tampered
from benchmarks.strategies.figures import Figures, figures_of
from benchmarks.strategies.grid import LocalGrid, virtual_time
from benchmarks.strategies.pooled import figures_of_pooled
from benchmarks.strategies.processor_time import FILE
from benchmarks.strategies.runs import FIGURES
from hymate.data.output import fresh_folder
from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.protocol import Action
from server.app import run_study
from server.checkpoint import FOLDER as CHECKPOINTS
from server.checkpoint import Checkpoints
from server.failure import StudyFailure
from server.journal import BOARD, cut_back
from server.resume import only_one
from server.study import StudyConfig, dump_study


class _Pretrained(BaseException):
    """Fine-tuning would begin. No `Exception`: nothing on the way may take it for a fault."""


class _PretrainingGrid(LocalGrid):
    """Carries no message of fine-tuning."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        if any(message.metadata.message_type == Action.FINETUNE for message in messages):
            raise _Pretrained
        return super().push_messages(messages)


def main(arguments: list[str] | None = None) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("job", type=Path, help="as `benchmarks.strategies` wrote it")
    path: Path = parser.parse_args(arguments).job
    torch.set_num_threads(1)
    job = json.loads(path.read_text(encoding="utf-8"))
    study = StudyConfig.model_validate(job["study"])
    folder = path.with_suffix("")
    try:
        if job["kind"] == "pooled":
            figures = figures_of_pooled(study, folder)
        elif job["kind"] == "pretraining":
            figures = _pretrain(study, folder, Path(job["caches"]))
        else:
            figures = _finetune(study, folder, job)
    except (InputFault, StudyFailure) as fault:
        print(fault, file=sys.stderr)
        return 2
    write_text(folder / FIGURES, figures.model_dump_json(indent=2) + "\n")
    if job["kind"] != "pretraining":  # what runs begin with is kept, and what they came to
        for left in (CHECKPOINTS, BOARD, "sites", "store"):
            shutil.rmtree(folder / left, ignore_errors=True)
    return 0


def _pretrain(study: StudyConfig, folder: Path, caches: Path) -> Figures:
    """Up to the checkpoint of the last round of pretraining."""
    if not folder.is_dir():
        assert study.simulation is not None
        assert study.simulation.sites is not None  # the job names them
        with fresh_folder(folder) as made:
            for name, data in sorted(study.simulation.sites.items()):
                home = made / "sites" / name
                home.mkdir(parents=True)
                # Data and cache lie apart: a copy of the run directory reads the same ones.
                site = {
                    "name": name,
                    "data": str(data),
                    "cache": str(caches / name),
                    "state": "state",
                    "policy": {"min_cell": study.simulation.min_cell},
                }
                (home / "site.yaml").write_text(yaml.safe_dump(site, sort_keys=False), encoding="utf-8")
            (made / "study.yaml").write_text(dump_study(study), encoding="utf-8")
    sites = _sites(folder)
    with only_one(folder):
        try:
            run_study(_PretrainingGrid(folder, sites), study, folder, len(sites), virtual_time())  # type: ignore[arg-type]
        except _Pretrained:
            last = Checkpoints(folder).last
            cut_back(folder, last.study["marks"] if last else (0, 0))
    return Figures()


def _finetune(study: StudyConfig, folder: Path, job: dict[str, Any]) -> Figures:
    """From the pretrained run directory to figures."""
    if not folder.is_dir():
        with fresh_folder(folder) as made:
            left_out = shutil.ignore_patterns(BOARD, FIGURES, FILE, ".lock")
            shutil.copytree(job["base"], made, dirs_exist_ok=True, ignore=left_out)
            (made / "study.yaml").write_text(dump_study(study), encoding="utf-8")
    sites, attack, attacker = _sites(folder), job["attack"], job["attacker"]

    def tamper(site: str, request: Message, reply: Message) -> Message:
        return tampered(attack, request, reply, study.seed) if site == attacker else reply

    without, failed = ([attacker] if attacker else []), ""
    with only_one(folder):
        try:
            run_study(LocalGrid(folder, sites, tamper), study, folder, len(sites), virtual_time())  # type: ignore[arg-type]
        except (InputFault, StudyFailure) as failure:
            if attack == "none":
                raise
            failed = str(failure)
        return figures_of(folder, without, failed)


def _sites(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("sites/*/site.yaml"))


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"ended with {code} after {time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(code)
