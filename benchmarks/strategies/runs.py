"""One run of a table: what it is, where it lies, and how far it has come.

    OUT/data/KEY/         the hospitals of a population under one seed
    OUT/runs/ID/          the run directory, as of any study; figures.json once it has finished
    OUT/runs/ID.json      what is to be done (`Job`)
    OUT/runs/ID.log       what it said

ID is a hash of hospitals, study and attack: a run that stands in two rows is done once, and one whose
settings change is another run. What pretraining depends on has a hash of its own: it is done once and the
runs begin with a copy of its run directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.records import State, commits_in, digest
from benchmarks.strategies.attacks import Attack
from benchmarks.strategies.figures import Figures
from benchmarks.strategies.files import PopulationConfig, RowConfig, TablesConfig, row_study, study_content
from benchmarks.strategies.places import Place, place_of
from hymate.durable import write_text
from hymate.errors import InputFault
from server.simulation_config import SimulationConfig
from server.study import StudyConfig
from strategies.registry import make_algorithm

Kind = Literal["pretraining", "federated", "pooled"]
FIGURES = "figures.json"
NAME = "strategies"
"""Of every study: sites keep what they remember under it, and a copied run goes on with it."""
_TRAINING = ("seed", "task", "vocabulary", "model", "pretrain", "finetune")
_PRETRAINING = ("seed", "task", "vocabulary", "model", "pretrain", "participation")


@dataclass(frozen=True)
class Run:
    """A row under one seed, and under one attack where the table has any."""

    row: str
    kind: Kind
    place: Place
    study: StudyConfig
    """Without hospitals and its own participation: `Job` has both."""
    out: Path
    attack: Attack = "none"
    attacker: str = ""
    """Its held-out stays do not count, under no attack either; "" where the table has none."""
    candidate: int = 0
    """Which of the row's candidates; 0 where it has none."""

    @property
    def seed(self) -> int:
        return self.study.seed

    @property
    def told(self) -> str:
        """For a person: row, attack, seed."""
        under = "" if self.attack == "none" else f", {self.attack}"
        which = f", candidate {self.candidate + 1}" if self.candidate else ""
        return f"{self.row}{under}{which}, seed {self.seed}"

    @property
    def id(self) -> str:
        keys = {"pretraining": _PRETRAINING, "pooled": _TRAINING}.get(
            self.kind, (*_TRAINING, "strategy", "evaluation", "participation")
        )
        attack = [self.attack, self.attacker] if self.attacker else []
        content = self.study.model_dump(mode="json", exclude_defaults=True, include=set(keys))
        if "strategy" in content:  # a step's name is its default
            steps = self.study.strategy.compression
            content["strategy"]["compression"] = [step.model_dump(mode="json") for step in steps]
        return digest([self.kind, self.place.key, content, attack])

    @property
    def folder(self) -> Path:
        return self.out / "runs" / self.id

    def beside(self, kind: str) -> Path:
        return self.folder.with_name(f"{self.id}.{kind}")

    def pretraining(self, content: StudyConfig) -> Run:
        """The run that this one begins with a copy of."""
        return replace(self, row="pretraining", kind="pretraining", study=content, attack="none", attacker="")

    def state(self) -> State:
        """Raises `InputFault` where the run is damaged."""
        if (self.folder / FIGURES).is_file():
            if self.kind != "pretraining":
                self.figures()
            return "finished"
        return "begun" if self.folder.is_dir() else "new"

    def figures(self) -> Figures:
        """What the finished run came to; `InputFault` where that is damaged."""
        path = self.folder / FIGURES
        try:
            return Figures.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputFault(
                path, "holds no figures of a run", "remove the run's folder, run again"
            ) from None

    def commits(self) -> list[str]:
        """Under which it was run, in order."""
        return commits_in(self.beside("json"))

    def note(self, commit: str, base: Run | None) -> Path:
        """Write down what is to be done; a run that goes on under another commit keeps both."""
        sites = self.place.sites(self.out)
        simulation = SimulationConfig(sites=sites, min_cell=1)
        study = self.study.model_copy(update={"name": NAME, "simulation": simulation})
        job: dict[str, Any] = {
            "row": self.row,
            "kind": self.kind,
            "attack": self.attack,
            "attacker": self.attacker,
            "base": str(base.folder) if base else None,
            "caches": str(self.place.folder(self.out).with_name(f"{self.place.key}.caches").resolve()),
            "commits": list(dict.fromkeys([*self.commits(), commit])),
            "study": study.model_dump(mode="json", exclude_none=True),
        }
        write_text(self.beside("json"), json.dumps(job, indent=2) + "\n")
        return self.beside("json")


@dataclass(frozen=True)
class Table:
    """A population with all its runs."""

    name: str
    population: PopulationConfig
    rows: dict[str, RowConfig]
    runs: tuple[Run, ...]
    """Seed by seed, so that a stop leaves whole comparisons behind."""
    pretrainings: dict[str, Run]
    """Run's id -> the pretraining it begins with."""
    reduced: bool
    faults: tuple[str, ...] = ()
    """Rows that cannot be run, one line each."""

    @property
    def attacks(self) -> tuple[Attack, ...]:
        population = self.population
        return (population.reduced.attacks if self.reduced else ()) or population.attacks

    def of(self, row: str, attack: Attack = "none") -> list[Run]:
        """A row's runs of all its candidates."""
        return [run for run in self.runs if (run.row, run.attack) == (row, attack)]

    def chosen(self, row: str, attack: Attack = "none") -> list[Run]:
        """A row's runs, one for each seed, under the candidate best on tuning; of several candidates none
        before all of them have been tried under the first seed."""
        runs = self.of(row, attack)
        tried = [run for run in runs if run.seed == runs[0].seed] if runs else []
        if len(tried) < 2:
            return runs
        if any(run.state() != "finished" for run in tried):
            return []
        best = max(tried, key=lambda run: run.figures().best_criterion or float("-inf"))
        return [run for run in runs if run.candidate == best.candidate]


def table_of(
    tables: TablesConfig, name: str, seeds: tuple[int, ...] | None, out: Path, folder: Path, *, reduced: bool
) -> Table:
    """All runs of a population; a row that is no study is one of the table's faults.

    Raises `InputFault` where the population itself is wrong.
    """
    population = tables.populations[name]
    known = dict(zip(population.seeds, population.data_seeds or population.seeds, strict=True))
    wanted = seeds or (population.reduced.seeds if reduced else population.seeds)
    content = study_content(population, folder, reduced=reduced)
    names = (population.reduced.rows if reduced else ()) or population.rows
    rows = {row: tables.rows[row] for row in names}
    attacks = ((population.reduced.attacks if reduced else ()) or population.attacks) or ("none",)
    compared = {row.beside for row in rows.values() if row.beside}
    found, pretrainings, faults = [], {}, []
    for seed in wanted:
        plain = row_study(content, RowConfig(), {}, str(population.study), seed=seed, compared=False)
        assert plain.simulation is not None  # a population names its hospitals
        place = place_of(plain.simulation, population, seed, known.get(seed, seed), reduced=reduced)
        for row, config in rows.items():
            try:
                for study, candidate in _studies(content, rows, row, config, seed, compared):
                    for attack in attacks:
                        here = replace(place, flipped=(population.attacker, study.task.name))
                        run = Run(
                            row=row,
                            kind="pooled" if config.trained == "pooled" else "federated",
                            place=here if attack == "label flip" else place,
                            study=study.model_copy(update={"simulation": None}),
                            out=out,
                            attack=attack,
                            attacker=population.attacker,
                            candidate=candidate,
                        )
                        found.append(run)
                        if run.kind == "federated":
                            pretrainings[run.id] = run.pretraining(
                                plain.model_copy(update={"simulation": None})
                            )
            except InputFault as fault:
                faults.append(f"{row}: {fault}")
    told = tuple(dict.fromkeys(faults))
    return Table(name, population, rows, tuple(found), pretrainings, reduced, told)


def _studies(
    content: dict[str, Any],
    rows: dict[str, RowConfig],
    row: str,
    config: RowConfig,
    seed: int,
    compared: set[str],
) -> Iterator[tuple[StudyConfig, int]]:
    """A row's study under each of its candidates."""
    of, name = (rows[config.beside], config.beside) if config.beside else (config, row)
    for number, candidate in enumerate(of.candidates or ({},)):
        source = f"row '{row}'"
        study = row_study(content, of, candidate, source, seed=seed, compared=name in compared)
        make_algorithm(study.strategy.of("finetune"), source)
        yield study, number
