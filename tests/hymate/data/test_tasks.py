"""Windows: the right events of the right stay, in the right order, and nothing after the cut-off."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hymate.config import TaskConfig
from hymate.data.meds import MedsDataset, write_dataset
from hymate.data.tasks import cut_windows
from hymate.errors import InputFault

Event = tuple[int, datetime | None, str, float | None]
MIDNIGHT = datetime(2020, 2, 28)  # 48 hours later is 1 March: a leap day lies in the window


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


def dataset(
    root: Path, events: list[Event], labels: list[tuple[int, datetime, bool]], splits: dict[int, str]
) -> MedsDataset:
    table = pl.DataFrame(
        events,
        schema={
            "subject_id": pl.Int64,
            "time": pl.Datetime("us"),
            "code": pl.String,
            "numeric_value": pl.Float32,
        },
        orient="row",
    )
    write_dataset(
        root,
        name="site",
        events=table,
        splits=pl.DataFrame({"subject_id": list(splits), "split": list(splits.values())}),
        labels={
            "death": pl.DataFrame(
                labels,
                schema={
                    "subject_id": pl.Int64,
                    "prediction_time": pl.Datetime("us"),
                    "boolean_value": pl.Boolean,
                },
                orient="row",
            )
        },
        codes=table.select("code").unique(),
    )
    return MedsDataset.open(root)


def test_a_window_by_hand(tmp_path: Path) -> None:
    instant = timedelta(microseconds=1)
    events: list[Event] = [
        (7, None, "SEX//F", None),
        (7, None, "Age", 61.0),
        (7, at(0) - instant, "HR", 1.0),
        (7, at(0), "HR", 2.0),
        (7, at(1.5), "pH", 7.5),
        (7, at(1.5), "HR", 3.0),
        (7, at(1.5), "HR", 4.0),
        (7, at(36), "ventilated", None),
        (7, at(48), "HR", 5.0),
        (7, at(48) + instant, "HR", 6.0),
        (9, at(48), "HR", 7.0),
    ]
    site = dataset(tmp_path / "site", events, [(7, at(48), True)], {7: "train", 9: "train"})
    windows = cut_windows(site, TaskConfig(name="death"))
    assert windows.stays.rows() == [(0, 7, at(48), "train", 1.0, 6)]
    assert windows.triplets.schema == {
        "stay": pl.UInt32,
        "hours": pl.Float32,
        "code": pl.String,
        "value": pl.Float32,
    }
    assert windows.triplets.fill_nan(None).rows() == [
        (0, 0.0, "HR", 2.0),
        (0, 1.5, "pH", 7.5),
        (0, 1.5, "HR", 3.0),
        (0, 1.5, "HR", 4.0),
        (0, 36.0, "ventilated", None),
        (0, 48.0, "HR", 5.0),
    ]
    assert windows.triplets["value"].null_count() == 0, "an event without a number is NaN"
    assert windows.static.rows() == [(0, "SEX//F", None), (0, "Age", 61.0)]


def test_the_latest_observations_are_kept_ties_in_file_order(tmp_path: Path) -> None:
    events: list[Event] = [
        (1, at(hour), code, None) for hour, code in [(1, "a"), (2, "b"), (2, "c"), (2, "d"), (3, "e")]
    ]
    site = dataset(tmp_path / "site", events, [(1, at(48), False)], {1: "tuning"})
    windows = cut_windows(site, TaskConfig(name="death", max_observations=3))
    assert windows.triplets["code"].to_list() == ["c", "d", "e"]
    assert windows.stays["observations"].to_list() == [3]


def test_stays_of_one_subject_share_its_events(tmp_path: Path) -> None:
    events: list[Event] = [(1, at(hour), f"at {hour}", None) for hour in (1, 5, 9)] + [(1, None, "Age", 3.0)]
    site = dataset(tmp_path / "site", events, [(1, at(9), True), (1, at(5), False)], {1: "train"})
    windows = cut_windows(site, TaskConfig(name="death", lookback_hours=6))
    assert windows.stays.select("stay", "prediction_time", "label").rows() == [
        (0, at(5), 0.0),
        (1, at(9), 1.0),
    ]
    assert windows.triplets.select("stay", "hours", "code").rows() == [
        (0, 2.0, "at 1"),
        (0, 6.0, "at 5"),
        (1, 2.0, "at 5"),
        (1, 6.0, "at 9"),
    ]
    assert windows.static["stay"].to_list() == [0, 1]


def test_stays_left_out_are_counted(tmp_path: Path) -> None:
    events: list[Event] = [
        (1, at(1), "HR", 1.0),
        (2, at(1), "HR", 1.0),
        (2, at(2), "HR", 1.0),
        (3, None, "Age", 1.0),
    ]
    labels = [(subject, at(48), True) for subject in (1, 2, 3)]
    site = dataset(tmp_path / "site", events, labels, {1: "train", 2: "train", 3: "train"})
    windows = cut_windows(site, TaskConfig(name="death", min_observations=2))
    assert windows.stays["subject_id"].to_list() == [2]
    assert windows.stays["stay"].to_list() == [0]
    assert windows.triplets["stay"].to_list() == [0, 0]
    assert windows.left_out == {"no split": 0, "fewer than 2 observations": 2}

    splits = site.root / "metadata" / "subject_splits.parquet"
    pl.read_parquet(splits).filter(pl.col("subject_id") != 2).write_parquet(splits)
    everyone = cut_windows(site, TaskConfig(name="death", min_observations=0))
    assert everyone.stays.select("subject_id", "observations").rows() == [(1, 1), (3, 0)]
    assert everyone.left_out == {"no split": 1, "fewer than 0 observations": 0}


def test_an_unknown_task_is_one_fault(tmp_path: Path) -> None:
    site = dataset(tmp_path / "site", [(1, at(1), "HR", 1.0)], [(1, at(48), True)], {1: "train"})
    with pytest.raises(InputFault, match="death"):
        cut_windows(site, TaskConfig(name="readmission"))


@pytest.mark.parametrize("seed", range(4))
def test_windows_equal_a_plain_filter(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    subjects = [-5, 0, 3, 2**40]
    events: list[Event] = [
        (
            subject,
            None if rng.random() < 0.1 else at(int(rng.integers(0, 60)) / 2),
            f"code {rng.integers(5)}",
            i,
        )
        for subject in subjects
        for i in range(int(rng.integers(0, 40)))
    ]
    labels = [(subject, at(hour), bool(rng.integers(2))) for subject in subjects for hour in (5, 12.5, 30)]
    site = dataset(tmp_path / "site", events, labels, dict.fromkeys(subjects, "train"))
    task = TaskConfig(name="death", lookback_hours=8.5, max_observations=12)
    windows = cut_windows(site, task)

    expected, stay = [], 0
    for subject, end, _ in sorted(labels):
        start = end - timedelta(hours=8.5)
        inside = [
            (time, code, value)
            for owner, time, code, value in events
            if owner == subject and time is not None and start <= time <= end
        ]
        inside.sort(key=lambda event: event[0])
        if inside:
            expected += [
                (stay, (time - start) / timedelta(hours=1), code, value) for time, code, value in inside[-12:]
            ]
            stay += 1
    assert windows.triplets.rows() == expected
