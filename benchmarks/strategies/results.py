"""What the finished runs of a table say, seed by seed."""

from __future__ import annotations

from benchmarks.strategies.attacks import Attack
from benchmarks.strategies.figures import Figures, Scores
from benchmarks.strategies.runs import Table


def finished(table: Table, row: str, attack: Attack = "none") -> dict[int, Figures]:
    """Seed -> figures of a row's finished runs."""
    runs = table.chosen(row, attack)
    return {run.seed: run.figures() for run in runs if run.state() == "finished"}


def scores(table: Table, row: str) -> dict[int, Scores]:
    """Seed -> held-out figures of a row: of the sites' own models where that is what it is about."""
    alone = table.rows[row].trained == "alone"
    found = {seed: each.alone if alone else each.held_out for seed, each in finished(table, row).items()}
    return {seed: each for seed, each in found.items() if each is not None}


def row_of(table: Table, trained: str) -> str | None:
    """The row that the others are compared with."""
    return next((name for name, row in table.rows.items() if row.trained == trained), None)


def ratio(one: Scores, other: Scores) -> float | None:
    """Of their AUROC on all held-out stays."""
    return one.auroc / other.auroc if one.auroc is not None and other.auroc else None
