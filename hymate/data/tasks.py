"""A task's windows: which observations of which stay the model may see, and what it should learn.

A stay is one label row (MEDS `LabelSchema`): a subject, a prediction time, a label. Its window is
[prediction_time - lookback, prediction_time], both ends included: MEDS defines the prediction time as
the last instant whose data may be used (https://github.com/Medical-Event-Data-Standard/meds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.config import TaskConfig

if TYPE_CHECKING:
    from hymate.data.meds import MedsDataset

MICROSECONDS_PER_HOUR = 3_600_000_000


@dataclass(frozen=True)
class Windows:
    """The stays of one task and what lies in their windows.

    | frame    | columns                                                                              |
    |----------|--------------------------------------------------------------------------------------|
    | stays    | stay UInt32 (0, 1, ...), subject_id, prediction_time, split, label Float32 (null =   |
    |          | unlabelled), observations UInt32; one row a stay, by (subject_id, prediction_time)    |
    | triplets | stay, hours Float32 since the window's start, code String, value Float32 (NaN = event |
    |          | without a number); by (stay, hours), ties in the order of the data set                |
    | static   | stay, code, numeric_value Float32: the subject's rows without a time                  |

    `left_out` counts the label rows that became no stay, by reason.
    """

    stays: pl.DataFrame
    triplets: pl.DataFrame
    static: pl.DataFrame
    left_out: dict[str, int]


def cut_windows(dataset: MedsDataset, task: TaskConfig) -> Windows:
    """Cut `dataset` into the windows of `task`; the latest `task.max_observations` of each are kept.

    Events are sorted, so a window is one slice of them: two searches find it, no join is needed and
    10 million triplets stay well below 2 GiB.

    Raises:
        InputFault: the task has no labels, or a file of `dataset` is not as MEDS wants it.
    """
    candidates, left_out = _labelled_stays(dataset, task)
    events = dataset.events()
    time = _microseconds(events["time"])
    lookback = round(task.lookback_hours * MICROSECONDS_PER_HOUR)
    first, last = _slices(candidates, events["subject_id"].to_numpy(), time, lookback)

    enough = last - first >= task.min_observations
    left_out[f"fewer than {task.min_observations} observations"] = int((~enough).sum())
    first = np.maximum(first, last - task.max_observations)
    stays = candidates.with_columns(pl.Series("observations", last - first, dtype=pl.UInt32))
    stays = stays.filter(enough).with_row_index("stay")
    return Windows(
        stays=stays.select("stay", "subject_id", "prediction_time", "split", "label", "observations"),
        triplets=_triplets(events, time, stays, first[enough], lookback),
        static=_static(events, stays),
        left_out=left_out,
    )


def _labelled_stays(dataset: MedsDataset, task: TaskConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """Label rows with their subject's split, sorted, and how many were left out for what."""
    stays = dataset.labels(task.name).join(dataset.splits(), on="subject_id", how="left")
    no_split = stays["split"].is_null()
    return stays.filter(~no_split).sort("subject_id", "prediction_time"), {"no split": int(no_split.sum())}


def _microseconds(time: pl.Series) -> npt.NDArray[np.int64]:
    """Datetimes as integers; null (a static row) comes before every time."""
    whole = time.cast(pl.Datetime("us")).to_physical()
    return whole.fill_null(np.iinfo(np.int64).min).to_numpy()


def _slices(
    stays: pl.DataFrame, subject: npt.NDArray[np.int64], time: npt.NDArray[np.int64], lookback: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First event and one past the last event of each stay's window."""
    wanted = stays["subject_id"].to_numpy()
    begin = np.searchsorted(subject, wanted, side="left")
    end = np.searchsorted(subject, wanted, side="right")
    cut_off = _microseconds(stays["prediction_time"])
    first = _search(time, begin, end, cut_off - lookback)
    last = _search(time, begin, end, cut_off + 1)
    return first, last


def _search(
    time: npt.NDArray[np.int64],
    begin: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """For every slice time[begin:end] (ascending): the first position whose time is >= wanted."""
    low, high = begin.copy(), end.copy()
    while (open_ := np.flatnonzero(low < high)).size:
        middle = (low[open_] + high[open_]) // 2
        before = time[middle] < wanted[open_]
        low[open_] = np.where(before, middle + 1, low[open_])
        high[open_] = np.where(before, high[open_], middle)
    return low


def _triplets(
    events: pl.DataFrame,
    time: npt.NDArray[np.int64],
    stays: pl.DataFrame,
    first: npt.NDArray[np.int64],
    lookback: int,
) -> pl.DataFrame:
    """The events of every window, one below the other; a window's begin at `first`."""
    count = stays["observations"].to_numpy().astype(np.int64)
    position = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    start = _microseconds(stays["prediction_time"]) - lookback
    hours = (time[position] - np.repeat(start, count)) / MICROSECONDS_PER_HOUR
    chosen = events.select("code", "numeric_value")[pl.Series(position)]
    return chosen.select(
        pl.Series("stay", np.repeat(stays["stay"].to_numpy(), count), dtype=pl.UInt32),
        pl.Series("hours", hours.astype(np.float32)),
        "code",
        pl.col("numeric_value").fill_null(float("nan")).alias("value"),
    )


def _static(events: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    rows = events.filter(pl.col("time").is_null())
    return (
        stays.select("stay", "subject_id")
        .join(rows, on="subject_id", how="inner", maintain_order="left_right")
        .select("stay", "code", "numeric_value")
    )
