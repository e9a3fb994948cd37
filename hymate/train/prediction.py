"""A saved model on a data set: one probability a stay."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from hymate.config import TaskConfig
from hymate.data.label_sets import labels_of, with_label_sets
from hymate.data.mapping import translated
from hymate.data.meds import MedsDataset
from hymate.data.store import TripletStore, prepare_store
from hymate.data.tasks import cut_windows
from hymate.errors import InputFault
from hymate.evaluate import predictions
from hymate.train.saved_model import SavedModel
from hymate.train.scoring import outputs

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predicted:
    """left_out: stays without a prediction, by reason; unknown_codes: occurrences the model has no
    feature for, by code."""

    tables: dict[str, pl.DataFrame]
    """By label set, each as `hymate.evaluate.predictions` describes."""
    left_out: dict[str, int]
    unknown_codes: dict[str, int]


@dataclass(frozen=True)
class _Stays(MedsDataset):
    """A data set of which only some stays are asked for, with or without labels and splits."""

    asked: pl.DataFrame
    """subject_id, prediction_time, label Float32 (null: not known)."""
    splits_matter: bool

    def labels(self, task: str) -> pl.DataFrame:
        return self.asked

    def splits(self) -> pl.DataFrame:
        if self.splits_matter:
            return MedsDataset(self.root).splits()
        return self.asked.select("subject_id").unique().with_columns(pl.lit("held_out").alias("split"))


def predict(
    saved: SavedModel,
    data: Path,
    *,
    task: str = "",
    splits: Collection[str] = (),
    times: Path | None = None,
    threshold: float = 0.5,
    batch_size: int = 64,
) -> Predicted:
    """Predict for the stays of one MEDS data set.

    Args:
        task: whose labels name the stays (and are written beside the predictions); the window is the
            model's. "": the task the model learned.
        splits: only stays of subjects in these; none: every stay, and no split file is needed.
        times: a file of `subject_id` and `prediction_time` that names the stays instead; a column
            `boolean_value` in it counts as label.

    Raises:
        InputFault: the data cannot be read, has no such labels, or no stay can be predicted.
    """
    dataset = MedsDataset.open(data)
    window = _window(saved, task)
    asked = _asked(dataset, window) if times is None else _times(times)
    windows = cut_windows(_Stays(data, asked, bool(splits)), window)
    windows = translated(windows, dataset.units(), saved.vocabulary, dataset.name)
    with tempfile.TemporaryDirectory(prefix="hymate-predict-") as folder:
        store = prepare_store(Path(folder) / "store", windows, saved.vocabulary, window)
        rows = _rows(store, splits)
        if not rows.size:
            reasons = ", ".join(f"{count} {reason}" for reason, count in windows.left_out.items() if count)
            raise InputFault(
                data,
                f"has no stay to predict{f' ({reasons})' if reasons else ''}",
                "check split, prediction times and the model's window",
            )
        if times is None and len(window.label_sets) > 1:
            labels = labels_of(windows.stays, {dataset.name: dataset}, window)
        else:
            labels = np.repeat(store.label[:, None], len(window.label_sets), axis=1)
        made = predicted_values(saved, store, rows, batch_size)
        tables = tabulate(window, store, rows, made, labels[rows], threshold)
        unknown = store.header.unknown_codes
    return Predicted(tables, {k: v for k, v in windows.left_out.items() if v}, unknown)


def predicted_values(
    saved: SavedModel, store: TripletStore, rows: Rows, batch_size: int = 64
) -> npt.NDArray[np.float64]:
    """(n, K) for `rows` of a store made under the model's vocabulary: probabilities, or numbers in the
    label's unit."""
    made = outputs(saved.model, store, rows, batch_size).reshape(len(rows), -1)
    if saved.scale is not None:
        return saved.scale.mean + saved.scale.std * made
    probabilities: npt.NDArray[np.float64] = torch.sigmoid(torch.from_numpy(made)).numpy()
    return probabilities


def tabulate(
    task: TaskConfig,
    store: TripletStore,
    rows: Rows,
    made: npt.NDArray[np.float64],
    labels: npt.NDArray[np.float32],
    threshold: float = 0.5,
) -> dict[str, pl.DataFrame]:
    """Predictions of the stays in `rows` by label set; made, labels (n, K)."""
    keys = store.subject_id[rows], store.prediction_time[rows]
    if task.kind == "regression":
        return {task.name: predictions.number_predictions(*keys, made[:, 0], labels[:, 0])}
    return {
        name: predictions.binary_predictions(*keys, made[:, k], labels[:, k], threshold)
        for k, name in enumerate(task.label_sets)
    }


def write_tables(path: Path, tables: dict[str, pl.DataFrame]) -> None:
    """One table at `path`; several in the folder `path`, each under its label set's name."""
    for name, table in tables.items():
        predictions.write_predictions(path if len(tables) == 1 else path / f"{name}.parquet", table)


def _window(saved: SavedModel, task: str) -> TaskConfig:
    if task and saved.task.kind == "multilabel":
        learned = ", ".join(saved.task.names)
        raise InputFault("--task", f"the model learned several labels ({learned})", "leave --task out")
    return saved.task.model_copy(update={"name": task or saved.task.name})


def _rows(store: TripletStore, splits: Collection[str]) -> Rows:
    if not splits:
        return np.arange(len(store))
    found: Rows = np.sort(np.concatenate([store.rows(split) for split in splits]))
    return found


def _asked(dataset: MedsDataset, task: TaskConfig) -> pl.DataFrame:
    try:
        return with_label_sets(dataset, task).labels(task.name)
    except InputFault as fault:
        if set(task.label_sets) <= set(dataset.tasks()):
            raise
        raise InputFault(
            fault.where, fault.what, f"{fault.remedy}; or name the stays with --prediction-times FILE"
        ) from None


def _times(path: Path) -> pl.DataFrame:
    what = "a parquet or CSV file with columns subject_id and prediction_time"
    table = predictions.read_table(path, (*predictions.KEYS, predictions.LABEL), what)
    for name in predictions.KEYS:
        if table[name].null_count():
            raise InputFault(path, f"column '{name}' is empty in row {table[name].is_null().arg_max()}", what)
    label = pl.col(predictions.LABEL) if predictions.LABEL in table.columns else pl.lit(None)
    return (
        table.select(*predictions.KEYS, label.cast(pl.Float32).alias("label"))
        .unique(list(predictions.KEYS), keep="first")
        .sort(*predictions.KEYS)
    )
