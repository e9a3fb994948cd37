"""From a saved model and a data set to the stays that are to be explained, as the model sees them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from hymate.data.label_sets import with_label_sets
from hymate.data.mapping import translated
from hymate.data.meds import MedsDataset
from hymate.data.store import TripletStore, prepare_store
from hymate.data.tasks import cut_windows
from hymate.errors import InputFault
from hymate.train.saved_model import SavedModel


@dataclass(frozen=True)
class _Part(MedsDataset):
    """A data set of which one subject is read, or of which only some stays are asked for."""

    asked: pl.DataFrame
    """subject_id, prediction_time, label."""
    subject: int | None
    records: pl.DataFrame | None
    """The events, where they have been read already."""

    def events(self) -> pl.DataFrame:
        return MedsDataset(self.root).events() if self.records is None else self.records

    def labels(self, task: str) -> pl.DataFrame:
        return self.asked

    def splits(self) -> pl.DataFrame:
        if self.subject is None:
            return MedsDataset(self.root).splits()
        return pl.DataFrame({"subject_id": [self.subject], "split": ["held_out"]})


@contextmanager
def stay_of(saved: SavedModel, data: Path, subject: int, when: datetime | None) -> Iterator[TripletStore]:
    """A store that holds one stay of `subject` and nothing else; it is gone afterwards.

    Args:
        when: prediction time of the stay; None: the subject's last one among the task's labels.

    Raises:
        InputFault: no such subject, no such stay, or too few observations in its window. The number of
            subjects is said, never who they are.
    """
    dataset = MedsDataset.open(data)
    events = dataset.events()
    theirs = events.filter(pl.col("subject_id") == subject)
    if not len(theirs):
        what = f"is none of the {events['subject_id'].n_unique():,} subjects in {data}"
        raise InputFault(f"--subject {subject}", what, "check the number, and the data set")
    asked = _stays(dataset, saved).filter(pl.col("subject_id") == subject).sort("prediction_time")
    if when is not None:
        label = pl.lit(None, pl.Float32).alias("label")
        asked = pl.DataFrame({"subject_id": [subject], "prediction_time": [when]}).with_columns(
            pl.col("prediction_time").cast(pl.Datetime("us")), label
        )
    if not len(asked):
        what = f"has no stay of task '{saved.task.name}'"
        raise InputFault(f"--subject {subject}", what, "name one by --prediction-time")
    with _store(saved, _Part(data, asked.tail(1), subject, theirs)) as store:
        if not len(store):
            least = saved.task.min_observations
            what = f"has fewer than {least} observations in the {saved.task.lookback_hours:g} h before"
            raise InputFault(f"--subject {subject}", what, "name another stay by --prediction-time")
        yield store


@contextmanager
def stays_in(saved: SavedModel, data: Path) -> Iterator[TripletStore]:
    """A store of every stay of the model's task in `data`, by split; it is gone afterwards.

    Raises:
        InputFault: the data cannot be read, or has no such labels or no splits.
    """
    dataset = MedsDataset.open(data)
    with _store(saved, _Part(data, _stays(dataset, saved), None, None)) as store:
        yield store


def descriptions(data: Path) -> dict[str, str]:
    """Code -> what metadata/codes.parquet says it is, where it says that of no other code."""
    path = data / "metadata" / "codes.parquet"
    if not path.is_file():
        return {}
    table = pl.read_parquet(path)
    if not {"code", "description"} <= set(table.columns):
        return {}
    told = table.select(pl.col("code", "description").cast(pl.String)).drop_nulls()
    told = told.filter(pl.col("description").is_unique())
    return {code: text for code, text in told.iter_rows() if text.strip()}


def _stays(dataset: MedsDataset, saved: SavedModel) -> pl.DataFrame:
    if not set(saved.task.label_sets) & set(dataset.tasks()):
        return pl.DataFrame(
            schema={"subject_id": pl.Int64, "prediction_time": pl.Datetime("us"), "label": pl.Float32}
        )
    return with_label_sets(dataset, saved.task).labels(saved.task.name)


@contextmanager
def _store(saved: SavedModel, part: _Part) -> Iterator[TripletStore]:
    windows = cut_windows(part, saved.task)
    windows = translated(windows, MedsDataset(part.root).units(), saved.vocabulary, part.name)
    with tempfile.TemporaryDirectory(prefix="hymate-explain-") as folder:
        yield prepare_store(Path(folder) / "store", windows, saved.vocabulary, saved.task)
