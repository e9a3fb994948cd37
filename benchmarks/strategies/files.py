"""What is compared: the rows (strategies), the populations they are run on, and a reduced set of both.

    tables.yaml     rows: name -> strategy, and populations: name -> study, seeds, rows
    NAME.yaml       a population's study file, as `hymate-simulate --config` takes it

Every row of a population is that study with another `strategy:`; nothing else differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from benchmarks.experiments.files import merged
from benchmarks.strategies.attacks import Attack
from hymate.config import Frozen, load_yaml, parse
from hymate.errors import InputFault
from server.study import StudyConfig

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "configs" / "experiments" / "strategies"
TABLES = "tables.yaml"

Changes = dict[str, Any]
Family = Literal["comparison", "plain", "personal", "fair", "robust", "weighting", "compression"]
PRETRAINING: Changes = {"name": "fedavg"}
"""The strategy of pretraining in every row: its weights are shared by all of them."""


class RowConfig(Frozen):
    """One row: a strategy, or what strategies are compared with."""

    family: Family = "plain"
    strategy: Changes = Field(default_factory=dict)
    """The study's `strategy:`, that of fine-tuning."""
    candidates: tuple[Changes, ...] = ()
    """Settings of the strategy that are tried under the first seed; the one best on the tuning split is
    the row's, under every seed."""
    participation: Changes = Field(default_factory=dict)
    """Changes of the study's `participation:`."""
    study: Changes = Field(default_factory=dict)
    """Changes of the study elsewhere, where the strategy is not all of it."""
    trained: Literal["federated", "alone", "pooled"] = "federated"
    """alone: every site by itself, as the row `beside` reports it; pooled: all stays at one place."""
    beside: str = ""

    @model_validator(mode="after")
    def _alone_is_beside_another(self) -> RowConfig:
        if bool(self.beside) != (self.trained == "alone"):
            raise ValueError("`trained: alone` and `beside` belong together")
        return self


class ReducedConfig(Frozen):
    """A population in seconds: it shows that the experiment runs, and measures nothing."""

    set: Changes = Field(default_factory=dict)
    """Changes of the study."""
    rows: tuple[str, ...] = ()
    """Which rows; none named: all."""
    attacks: tuple[Attack, ...] = ()
    seeds: tuple[int, ...] = (0,)
    held_out: int | None = Field(default=20, ge=10)


class PopulationConfig(Frozen):
    """Hospitals, the study they are trained in, and the rows that are compared on them."""

    title: str
    about: str
    """Shown under the title."""
    study: Path
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    data_seeds: tuple[int, ...] = ()
    """Made-up hospitals: the cohort's seed under each of `seeds`; none: the same number. Real ones: the
    seed of their splits."""
    held_out: int | None = Field(default=None, ge=10)
    """Made-up hospitals have so many stays more, which are held out: they cost nothing, and a hospital's
    AUROC is then known well. Of the others 20 % are for tuning. None: the split of the data set."""
    rows: tuple[str, ...] = Field(min_length=1)
    attacks: tuple[Attack, ...] = ()
    """Then the table has a column for each of them, and `attacker` is the site that sends them."""
    attacker: str = ""
    reduced: ReducedConfig = ReducedConfig()

    @model_validator(mode="after")
    def _consistent(self) -> PopulationConfig:
        if bool(self.attacks) != bool(self.attacker):
            raise ValueError("attacks and attacker belong together")
        if self.data_seeds and len(self.data_seeds) != len(self.seeds):
            raise ValueError("data_seeds: one for each of seeds")
        return self


class TablesConfig(Frozen):
    """All that is compared."""

    rows: dict[str, RowConfig]
    populations: dict[str, PopulationConfig]

    @model_validator(mode="after")
    def _rows_are_there(self) -> TablesConfig:
        for name, population in self.populations.items():
            reduced = population.reduced
            for row in (*population.rows, *reduced.rows):
                if row not in self.rows:
                    raise ValueError(f"population '{name}': there is no row '{row}'")
            for rows in (population.rows, reduced.rows):
                for row in rows:
                    if (beside := self.rows[row].beside) and beside not in rows:
                        raise ValueError(f"population '{name}': row '{row}' needs row '{beside}'")
        return self


def load_tables(folder: Path = FOLDER) -> TablesConfig:
    """Raises `InputFault` where the file is wrong."""
    path = folder / TABLES
    return parse(TablesConfig, load_yaml(path), path)


def population_of(tables: TablesConfig, name: str) -> PopulationConfig:
    """Raises `InputFault` where there is none of this name."""
    if name not in tables.populations:
        known = ", ".join(tables.populations)
        raise InputFault(f"--population {name}", "no population of this name", f"there are {known}")
    return tables.populations[name]


def study_content(population: PopulationConfig, folder: Path, *, reduced: bool) -> Changes:
    """The population's study file, as it is written, with what the reduced set changes."""
    path = folder / population.study
    content = merged(load_yaml(path), population.reduced.set if reduced else {})
    if "strategy" in content:
        raise InputFault(path, "names a strategy", "leave it out: the rows of tables.yaml do")
    return content


def row_study(
    content: Changes, row: RowConfig, candidate: Changes, source: str, *, seed: int, compared: bool
) -> StudyConfig:
    """The study of one row; `compared`: every site is also trained by itself. Raises `InputFault`."""
    changes: Changes = {
        "seed": seed,
        "strategy": {"name": "fedavg", **row.strategy, **candidate, "pretrain": PRETRAINING},
        "participation": row.participation,
        "evaluation": {"local_baseline": compared},
    }
    return parse(StudyConfig, merged(merged(content, row.study), changes), source)
