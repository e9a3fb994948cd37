"""A saved model on a data set: one probability a stay."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.mapping import translated
from hymate.data.meds import MedsDataset
from hymate.data.store import TripletStore, prepare_store
from hymate.data.tasks import cut_windows
from hymate.errors import InputFault
from hymate.evaluate import predictions
from hymate.train.loop import score
from hymate.train.saved_model import SavedModel

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predicted:
    """left_out: stays without a prediction, by reason; unknown_codes: occurrences the model has no
    feature for, by code."""

    table: pl.DataFrame
    """As `hymate.evaluate.predictions` describes."""
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
    window = saved.task.model_copy(update={"name": task or saved.task.name})
    asked = _asked(dataset, window.name) if times is None else _times(times)
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
        table = tabulate(saved, store, rows, threshold, batch_size)
        unknown = store.header.unknown_codes
    return Predicted(table, {k: v for k, v in windows.left_out.items() if v}, unknown)


def tabulate(
    saved: SavedModel, store: TripletStore, rows: Rows, threshold: float = 0.5, batch_size: int = 64
) -> pl.DataFrame:
    """Predictions for `rows` of a store made under the model's vocabulary."""
    return predictions.binary_predictions(
        subject=store.subject_id[rows],
        time=store.prediction_time[rows],
        probability=score(saved.model, store, rows, batch_size),
        label=store.label[rows],
        threshold=threshold,
    )


def _rows(store: TripletStore, splits: Collection[str]) -> Rows:
    if not splits:
        return np.arange(len(store))
    found: Rows = np.sort(np.concatenate([store.rows(split) for split in splits]))
    return found


def _asked(dataset: MedsDataset, task: str) -> pl.DataFrame:
    try:
        return dataset.labels(task)
    except InputFault as fault:
        if task in dataset.tasks():
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
