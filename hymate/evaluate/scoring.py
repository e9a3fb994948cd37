"""Predictions of a file against the labels of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from hymate.data.meds import MedsDataset
from hymate.data.meds_files import LABELS
from hymate.errors import InputFault
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.evaluate.figures import Report, binary_report, regression_report
from hymate.evaluate.predictions import KEYS, LABEL, NUMBER, PREDICTED_NUMBER, PROBABILITY, read_table

_WANTED = "predictions as `hymate predict` writes them"


@dataclass(frozen=True)
class Scored:
    """Figures of the stays that have both, and how many rows lack the other side."""

    report: Report
    predictions_without_label: int
    labels_without_prediction: int


def evaluate_predictions(
    predictions: Path, labels: Path | None, *, task: str = "", bootstrap: BootstrapSettings
) -> Scored:
    """Join predictions and labels by subject and prediction time, and measure.

    Args:
        labels: a MEDS data set, or a folder of MEDS label files; None: the labels in `predictions`.
        task: label set of the data set; "": the only one there.

    Raises:
        InputFault: a file cannot be read, is not what it should be, or no row has both.
    """
    table = _predictions(predictions)
    made, label = (PROBABILITY, LABEL) if PROBABILITY in table.columns else (PREDICTED_NUMBER, NUMBER)
    if labels is None:
        if label not in table.columns:
            raise InputFault(predictions, f"holds no labels (column '{label}')", "give --labels DIR")
        truth = table.select(*KEYS, pl.col(label).cast(pl.Float32).alias("label")).drop_nulls()
    else:
        truth = _labels(labels, task, label)
    both = table.select(*KEYS, made).join(truth, on=KEYS, how="inner").sort(*KEYS)
    if not len(both):
        raise InputFault(
            predictions,
            "no prediction has a label (same subject_id and prediction_time)",
            "give the labels of the stays that were predicted",
        )
    if made == PROBABILITY:
        _demand_boolean(both, labels or predictions)
    measure = binary_report if made == PROBABILITY else regression_report
    report = measure(
        both["label"].to_numpy().astype(np.float64),
        both[made].to_numpy().astype(np.float64),
        both["subject_id"].to_numpy(),
        bootstrap,
    )
    return Scored(report, len(table) - len(both), len(truth) - len(both))


def _demand_boolean(table: pl.DataFrame, where: Path) -> None:
    wrong = table.filter(~pl.col("label").is_in([0.0, 1.0]))
    if len(wrong):
        what = f"subject {wrong['subject_id'][0]} has label {wrong['label'][0]:g}, which is no boolean"
        raise InputFault(where, what, "give labels with boolean_value")


def _predictions(path: Path) -> pl.DataFrame:
    table = read_table(path, (*KEYS, LABEL, PROBABILITY, NUMBER, PREDICTED_NUMBER), _WANTED)
    if PROBABILITY in table.columns:
        outside = table.filter(~pl.col(PROBABILITY).is_between(0.0, 1.0).fill_null(False))
        if len(outside):
            what = f"subject {outside['subject_id'][0]} has probability {outside[PROBABILITY][0]}"
            raise InputFault(path, what, "every row needs a probability from 0 to 1")
    elif PREDICTED_NUMBER in table.columns:
        empty = table.filter(~pl.col(PREDICTED_NUMBER).is_finite().fill_null(False))
        if len(empty):
            what = f"subject {empty['subject_id'][0]} has prediction {empty[PREDICTED_NUMBER][0]}"
            raise InputFault(path, what, "every row needs a number")
    else:
        raise InputFault(path, f"column '{PROBABILITY}' is missing", f"give {_WANTED}")
    twice = table.filter(pl.struct(KEYS).is_duplicated())
    if len(twice):
        what = (
            f"subject {twice['subject_id'][0]} is predicted more than once at {twice['prediction_time'][0]}"
        )
        raise InputFault(path, what, "keep one prediction per subject and prediction time")
    return table


def _labels(folder: Path, task: str, column: str) -> pl.DataFrame:
    """Labels of a MEDS data set, or of the very folder that holds a task's files."""
    if not folder.is_dir():
        raise InputFault(folder, "no such folder", "give DATA/labels/TASK, or a MEDS data set")
    files = sorted(folder.rglob("*.parquet")) if not (folder / LABELS).is_dir() else []
    if files:
        truth = pl.concat([_label_file(path, column) for path in files])
        twice = truth.filter(pl.struct(KEYS).is_duplicated())
        if len(twice):
            what = (
                f"subject {twice['subject_id'][0]} has more than one label at {twice['prediction_time'][0]}"
            )
            raise InputFault(folder, what, "keep one label per subject and prediction time")
        return truth
    dataset = MedsDataset(folder)
    tasks = dataset.tasks()
    if not tasks:
        raise InputFault(folder, "holds no labels", "give DATA/labels/TASK, or a MEDS data set")
    if not task and len(tasks) > 1:
        raise InputFault(folder, f"holds several label sets ({', '.join(tasks)})", "choose one with --task")
    return dataset.labels(task or tasks[0])


def _label_file(path: Path, column: str) -> pl.DataFrame:
    wanted = f"MEDS labels with {column}"
    table = read_table(path, (*KEYS, column), wanted)
    if column not in table.columns:
        raise InputFault(path, f"column '{column}' is missing", f"give {wanted}")
    return table.select(*KEYS, pl.col(column).cast(pl.Float32).alias("label")).drop_nulls("label")
