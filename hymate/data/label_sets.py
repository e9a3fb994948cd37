"""The labels of a task, one column a label set, where a task has several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.config import TaskConfig
from hymate.data.meds import MedsDataset
from hymate.errors import InputFault

KEYS = ("subject_id", "prediction_time")


@dataclass(frozen=True)
class LabelSets(MedsDataset):
    """A data set whose stays are those of any of `names`: what `cut_windows` reads of several label sets."""

    names: tuple[str, ...]

    def labels(self, task: str) -> pl.DataFrame:
        """As `MedsDataset.labels`; `label` is the first that the stay has, and says that it has one."""
        return label_table(self, self.names).select(*KEYS, pl.coalesce(self.names).alias("label"))


def with_label_sets(dataset: MedsDataset, task: TaskConfig) -> MedsDataset:
    """The data set as the task sees it."""
    return LabelSets(dataset.root, task.names) if task.kind == "multilabel" else dataset


def label_table(dataset: MedsDataset, names: Sequence[str]) -> pl.DataFrame:
    """`subject_id`, `prediction_time`, and a Float32 column for each of `names`; null: not labelled."""
    tables = [MedsDataset(dataset.root).labels(name).rename({"label": name}) for name in names]
    table = tables[0]
    for other in tables[1:]:
        table = table.join(other, on=KEYS, how="full", coalesce=True)
    return table.sort(*KEYS)


def labels_of(
    stays: pl.DataFrame, datasets: Mapping[str, MedsDataset], task: TaskConfig
) -> npt.NDArray[np.float32]:
    """Labels of `stays` in their order, (N, K), K of `task.label_sets`; NaN where a stay lacks one.

    Raises:
        InputFault: a label that has to be boolean is another number.
    """
    tables = []
    for name, dataset in datasets.items():
        table = label_table(dataset, task.label_sets)
        if task.kind != "regression":
            _demand_boolean(table, task, name)
        tables.append(table)
    return _columns(stays, tables, task.label_sets)


def numbers_of(
    stays: pl.DataFrame, datasets: Mapping[str, MedsDataset], names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """As `labels_of`, for any label sets: a boolean is 0 or 1."""
    if not names:
        return np.zeros((len(stays), 0), np.float32)
    return _columns(stays, [label_table(dataset, names) for dataset in datasets.values()], names)


def _columns(
    stays: pl.DataFrame, tables: Sequence[pl.DataFrame], names: Sequence[str]
) -> npt.NDArray[np.float32]:
    found = stays.select(*KEYS).join(pl.concat(tables), on=KEYS, how="left", maintain_order="left")
    columns = [found[name].fill_null(float("nan")).to_numpy() for name in names]
    return np.stack(columns, axis=1).astype(np.float32)


def _demand_boolean(table: pl.DataFrame, task: TaskConfig, dataset: str) -> None:
    for name in task.label_sets:
        wrong = table.filter(~pl.col(name).is_in([0.0, 1.0]))
        if len(wrong):
            raise InputFault(
                f"data set '{dataset}'",
                f"label {wrong[name][0]:g} of '{name}' (subject {wrong['subject_id'][0]}) is no boolean",
                "set task.kind to regression, or choose another label set",
            )
