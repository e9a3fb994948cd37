"""A table's file: which trainings it compares, on which data, and what a reduced set of them is.

    base     training file that every row starts from
    set      what all rows change in it
    rows     name -> what this row changes besides

A change is a part of a training file; sections are merged key by key, except that a `model` of another
`name` replaces the model whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hymate.config import Frozen, load_yaml, parse
from hymate.data.synthetic import SyntheticConfig
from hymate.errors import InputFault
from hymate.train.config import TrainConfig

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "configs" / "experiments"
TABLES = (
    "baselines",
    "ablations",
    "cross-validation",
    "labels",
    "best-ablations",
    "embedding",
    "context",
)
"""In the order in which they tell most for the time they take."""

Changes = dict[str, Any]
SummaryKind = Literal["logistic_regression", "gradient_boosting"]
FitOn = tuple[Literal["train", "tuning"], ...]


class DataConfig(Frozen):
    """What is trained on; one of the two."""

    physionet2012: Literal["protocol", "folds"] | None = None
    """The lineage's split of sets b and c, or every fold of a cross-validation over them."""
    folds: int = Field(default=5, ge=2)
    synthetic: Changes | None = None
    """One made-up hospital: the keys of `hymate data synthetic`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> DataConfig:
        if (self.physionet2012 is None) == (self.synthetic is None):
            raise ValueError("name either physionet2012 or synthetic")
        if self.synthetic is not None:
            SyntheticConfig.model_validate({**self.synthetic, "hospitals": 1})
        return self


class RowConfig(Frozen):
    """One row of a table."""

    base: Path | None = None
    """Another training file than the table's."""
    set: Changes = Field(default_factory=dict)
    reduced: Changes = Field(default_factory=dict)
    """Further changes in the reduced set."""
    summary: SummaryKind | None = None
    """Not a training: this model on summary features (`hymate.model.baselines.summary`)."""
    fit_on: FitOn = ("train",)
    """Splits that `summary` is fitted on; it needs no tuning stays."""


class ReducedConfig(Frozen):
    """The table in minutes, on made-up data: it shows that the experiment runs, and measures nothing."""

    data: DataConfig = DataConfig(synthetic={"stays": 300, "seed": 0})
    set: Changes = Field(default_factory=dict)
    rows: tuple[str, ...] = ()
    """Which rows; none named: all."""
    seeds: tuple[int, ...] = (0,)


class TableConfig(Frozen):
    """One table of docs/results.md."""

    title: str
    about: str
    """Shown under the title."""
    base: Path
    data: DataConfig
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    set: Changes = Field(default_factory=dict)
    rows: dict[str, RowConfig] = Field(min_length=1)
    against: str = ""
    """The row that the others are compared with, seed by seed."""
    reduced: ReducedConfig = ReducedConfig()

    @model_validator(mode="after")
    def _rows_are_there(self) -> TableConfig:
        for name in (*self.reduced.rows, *filter(None, [self.against])):
            if name not in self.rows:
                raise ValueError(f"there is no row '{name}'")
        return self


def load_table(name: str, folder: Path = FOLDER) -> TableConfig:
    """Raises `InputFault` where there is no such table, or its file is wrong."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join((*TABLES, "all"))
        raise InputFault(name, "no table of this name", f"there are {known}")
    return parse(TableConfig, load_yaml(path), path)


def row_config(table: TableConfig, row: str, reduced: bool, folder: Path = FOLDER) -> TrainConfig:
    """The training file of one row, without data, seed 0."""
    chosen = table.rows[row]
    path = folder / (chosen.base or table.base)
    content = load_yaml(path)
    changes = [table.set, chosen.set]
    if reduced:
        # What a table reduces is for all its rows, and what a row is about stays.
        changes = [table.set, table.reduced.set, chosen.set, chosen.reduced]
    for change in changes:
        content = merged(content, change)
    return parse(TrainConfig, content, f"{path}, row '{row}'")


def merged(content: Changes, change: Changes) -> Changes:
    """`content` with `change` laid over it; neither is changed.

    >>> merged({"model": {"d_model": 64}, "seed": 0}, {"model": {"dropout": 0.1}})
    {'model': {'d_model': 64, 'dropout': 0.1}, 'seed': 0}
    >>> merged({"model": {"d_model": 64}}, {"model": {"name": "gru"}})
    {'model': {'name': 'gru'}}
    """
    result = dict(content)
    for key, value in change.items():
        before = result.get(key)
        other_model = key == "model" and isinstance(value, dict) and "name" in value
        if isinstance(value, dict) and isinstance(before, dict) and not other_model:
            result[key] = merged(before, value)
        else:
            result[key] = value
    return result
