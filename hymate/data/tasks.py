"""A task's windows: which observations of which stay the model may see, and what it should learn.

A stay is one label row (MEDS `LabelSchema`): a subject, a prediction time, a label. Its window is
[prediction_time - lookback, prediction_time], both ends included: MEDS defines the prediction time as
the last instant whose data may be used (https://github.com/Medical-Event-Data-Standard/meds).

MEDS times carry no zone. A window is cut by the clock they were written with: where that clock follows
daylight saving time, a window over the change is an hour longer or shorter than it says, and an hour in
autumn comes twice. Sites that care write UTC.
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
    |          | without a number); by (stay, time), ties in the order of the data set                 |
    | static   | stay, code, numeric_value Float32: the subject's rows without a time                  |

    Hours are whole microseconds rounded to 24 bits. That keeps the order and keeps equal times equal;
    different times stay different where they are further apart than 1 s in windows of up to 170 days
    (4,096 h), than 1 min up to 29 years (262,144 h), than 4 min up to 119 years.

    `left_out` counts the label rows that became no stay, by reason. `dataset` is the fingerprint of the
    data set they were cut from (`hymate.data.fingerprint`), "" where nobody asked for one.
    """

    stays: pl.DataFrame
    triplets: pl.DataFrame
    static: pl.DataFrame
    left_out: dict[str, int]
    dataset: str = ""


def cut_windows(dataset: MedsDataset, task: TaskConfig) -> Windows:
    """Cut `dataset` into the windows of `task`.

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
    used = _used_stays(candidates["subject_id"].to_numpy(), enough, task)
    if task.stays_per_subject != "all":
        left_out[f"further stays of a subject (stays_per_subject {task.stays_per_subject})"] = int(
            (enough & ~used).sum()
        )
    if task.keep == "latest":
        first = np.maximum(first, last - task.max_observations)
    else:
        last = np.minimum(last, first + task.max_observations)
    stays = candidates.with_columns(pl.Series("observations", last - first, dtype=pl.UInt32))
    stays = stays.filter(used).with_row_index("stay")
    return Windows(
        stays=stays.select("stay", "subject_id", "prediction_time", "split", "label", "observations"),
        triplets=_triplets(events, time, stays, first[used], lookback),
        static=_static(events, stays),
        left_out=left_out,
    )


def _labelled_stays(dataset: MedsDataset, task: TaskConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """Label rows with their subject's split, sorted, and how many were left out for what."""
    stays = dataset.labels(task.name).join(dataset.splits(), on="subject_id", how="left")
    no_split = stays["split"].is_null()
    return stays.filter(~no_split).sort("subject_id", "prediction_time"), {"no split": int(no_split.sum())}


def _used_stays(
    subject: npt.NDArray[np.int64], enough: npt.NDArray[np.bool_], task: TaskConfig
) -> npt.NDArray[np.bool_]:
    """Which of the candidates, ordered by (subject, prediction time), the task uses."""
    if task.stays_per_subject == "all":
        return enough
    able = np.flatnonzero(enough)
    owner = subject[able]
    begin = np.searchsorted(owner, owner, side="left")
    end = np.searchsorted(owner, owner, side="right")
    rank = np.arange(len(able)) - begin
    if task.stays_per_subject == "last":
        chosen = rank == end - begin - 1
    else:
        chosen = rank < (1 if task.stays_per_subject == "first" else task.stays_per_subject)
    used = np.zeros(len(subject), np.bool_)
    used[able[chosen]] = True
    return used


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
