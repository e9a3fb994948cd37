"""What noise costs and what it covers: AUROC and audit by epsilon, four hospitals of PhysioNet-2012.

    python -m benchmarks.privacy_curve                   # all levels and settings; about an hour of one core
    python -m benchmarks.privacy_curve --level none --level 8
    python -m benchmarks.privacy_curve --collect         # the table of what has been run so far
    python -m benchmarks.privacy_curve --reduced         # two made-up hospitals; shows that it works

Of every level all settings are run, and the one with the best tuning figures (AUROC + average precision over
all hospitals' tuning stays) is the level's; held-out stays decide nothing. Beside each stands the audit of
its model: the loss attack of `hymate audit`, members the training patients of all hospitals, others the
held-out ones. What is finished is not run again, what was stopped goes on from its last round.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.children import alone_in
from benchmarks.command import exit_code
from benchmarks.records import commit_now, digest
from benchmarks.strategies.figures import Figures, figures_of
from benchmarks.strategies.grid import LocalGrid, virtual_time
from benchmarks.strategies.places import Place
from benchmarks.tables import head, line, number
from hymate.audit.attack import Attack, measure
from hymate.audit.people import Group, people_of
from hymate.audit.shadows import confidence
from hymate.durable import write_text
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.train.saved_model import load_model
from server.app import run_study
from server.study import StudyConfig, dump_study, load_study

NAME = "benchmarks.privacy_curve"
STUDY = Path(__file__).parent.parent / "deploy" / "configs" / "experiments" / "privacy-curve.yaml"
FIGURES = "curve.json"
NONE = "none"
LEVELS = (NONE, "8", "3", "1")
FEW_WEIGHTS = (
    "model.dropout=0",
    "model.summary_dropout=0",
    "model.summary_input_dropout=0",
    "model.d_summary=8",
    "model.summary_width=16",
    "finetune.encoder_rate=0.01",
)
"""Noise grows with the number of weights it is added to, and regularises enough: no dropout beside it."""
LONG = (
    "finetune.rounds=40",
    "finetune.patience=40",
    "finetune.batch_size=2048",
    "finetune.learning_rate=4.0e-2",
    "finetune.schedule=cosine",
    "privacy.max_grad_norm=5",
)
"""At norm 1 nearly every gradient is cut, so that deaths, which are to count six times, count once: the first
rounds go to a model that says nobody dies. At 5 they keep their weight."""
NOISY = (
    ("finetune.rounds=20", "finetune.batch_size=2048", "finetune.learning_rate=2.0e-2"),
    (*FEW_WEIGHTS, *LONG),
    (*FEW_WEIGHTS, "model.mamba_blocks=0", *LONG),
)
"""Settings tried at each level with noise. 2048 is more than any hospital has: everybody is in every step."""
PLAIN = (
    ("finetune.rounds=14", "finetune.batch_size=512", "finetune.learning_rate=1.0e-2"),
    (
        "finetune.rounds=14",
        "finetune.batch_size=32",
        "finetune.learning_rate=2.0e-3",
        "finetune.encoder_rate=1",
    ),
)
REDUCED = ("simulation.physionet2012=null", "simulation.synthetic={hospitals: 2, stays: 60}")
REDUCED_SETTINGS = (("finetune.rounds=1", "finetune.patience=1", "model.d_model=8"),)


@dataclass(frozen=True)
class Trial:
    """One study: a level under one of its settings."""

    level: str
    settings: tuple[str, ...]
    study: StudyConfig
    out: Path

    @property
    def folder(self) -> Path:
        # Without defaults: a new key that changes nothing is no other study.
        content = self.study.model_dump(
            mode="json", exclude_defaults=True, exclude={"simulation": {"physionet2012": {"raw"}}}
        )
        return self.out / f"{self.level}-{digest(content)}"

    def result(self) -> dict[str, Any] | None:
        """What it came to; None where it has not finished."""
        path = self.folder / FIGURES
        found: dict[str, Any] | None = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        )
        return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 2 for a wrong input; 130 where stopped."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--level", action="append", choices=LEVELS, help="this epsilon only; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/privacy-curve"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--collect", action="store_true", help="run nothing, show what is there")
    parser.add_argument("--reduced", action="store_true", help="tiny: shows that it works")
    parser.add_argument("--json", action="store_true", help="print the levels as one JSON object")
    options = parser.parse_args(arguments)
    return exit_code(NAME, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    out = options.out.resolve()
    trials = [
        trial
        for level in options.level or LEVELS
        for trial in _trials(level, options.seed, out, reduced=options.reduced)
    ]
    with alone_in(out):
        for trial in trials if not options.collect else ():
            if trial.result() is None:
                print(f"  epsilon {trial.level}: {' '.join(trial.settings)}", file=sys.stderr, flush=True)
                _train_and_audit(trial)
    chosen = _chosen(trials)
    if options.json:
        print(json.dumps(chosen, indent=1))
    else:
        print("\n".join(_table(chosen)))
    return 0


def _trials(level: str, seed: int, out: Path, *, reduced: bool) -> list[Trial]:
    noise = (
        ("privacy.mode=none", "privacy.target_epsilon=null")
        if level == NONE
        else (f"privacy.target_epsilon={level}",)
    )
    settings = PLAIN if level == NONE else NOISY
    common = (*noise, f"seed={seed}", *(REDUCED if reduced else ()))
    return [
        Trial(level, each, load_study(STUDY, (*common, *each)), out)
        for each in (REDUCED_SETTINGS if reduced else settings)
    ]


def _train_and_audit(trial: Trial) -> None:
    """The study from where it stands to its report, then the attack."""
    simulation = trial.study.simulation
    assert simulation is not None  # the file names its hospitals
    source: Any = simulation.synthetic or simulation.physionet2012
    place = Place(source, held_out=None)
    place.lay_out(trial.out)
    sites = place.sites(trial.out)
    folder = trial.folder
    for name, data in sites.items():
        site = {
            "name": name,
            "data": str(data),
            "cache": str(trial.out / "caches" / place.key / name),
            "state": "state",
            "policy": {"min_cell": simulation.min_cell},
        }
        write_text(folder / "sites" / name / "site.yaml", yaml.safe_dump(site, sort_keys=False))
    if not (folder / "study.yaml").is_file():
        write_text(folder / "study.yaml", dump_study(trial.study))
    run_study(LocalGrid(folder, list(sites)), trial.study, folder, len(sites), virtual_time())  # type: ignore[arg-type]
    figures = figures_of(folder, [], "")
    attack = _attack(folder, sites, trial.study.privacy.delta)
    result = {
        "level": trial.level,
        "settings": trial.settings,
        "commit": commit_now(),
        "tuning": figures.best_criterion,
        "figures": json.loads(figures.model_dump_json()),
        "attack": attack.to_json(),
    }
    write_text(folder / FIGURES, json.dumps(result, indent=1) + "\n")


def _attack(run: Path, sites: dict[str, Path], delta: float) -> Attack:
    """The loss attack on the people of all hospitals together."""
    saved = load_model(run)
    scores, member = [], []
    for data in sites.values():
        with people_of(saved, Group(data, ("train",)), Group(data, ("held_out",))) as people:
            scores.append(confidence(saved, people))
            member.append(people.member)
    return measure(
        "loss threshold", np.concatenate(scores), np.concatenate(member), delta, BootstrapSettings()
    )


def _chosen(trials: list[Trial]) -> list[dict[str, Any]]:
    """Of each level the result with the best tuning figures."""
    best: dict[str, dict[str, Any]] = {}
    for trial in trials:
        result = trial.result()
        if result is None:
            continue
        before = best.get(trial.level)
        if before is None or (result["tuning"] or 0.0) > (before["tuning"] or 0.0):
            best[trial.level] = result
    return list(best.values())


def _table(chosen: list[dict[str, Any]]) -> list[str]:
    names = (
        "epsilon",
        "AUROC pooled",
        "worst hospital",
        "AP pooled",
        "tuning AUROC + AP",
        "audit AUC",
        "settings",
    )
    lines = head(names)
    for each in chosen:
        held_out = Figures.model_validate(each["figures"]).held_out
        assert held_out is not None  # a study that failed has no result
        auc = each["attack"]["auc"]
        cells = (
            each["level"],
            number(held_out.auroc),
            number(held_out.worst),
            number(held_out.average_precision),
            number(each["tuning"]),
            f"{auc['value']:.3f} ({auc['lower']:.3f} - {auc['upper']:.3f})",
            " ".join(setting.split(".", 1)[1] for setting in each["settings"]),
        )
        lines.append(line(cells))
    return lines


if __name__ == "__main__":
    sys.exit(main())
