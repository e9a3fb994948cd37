"""Windows: the right events of the right stay, in the right order, and nothing after the cut-off."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from hymate.config import TaskConfig
from hymate.data.batching import collate
from hymate.data.meds import MedsDataset, write_dataset
from hymate.data.store import prepare_store
from hymate.data.tasks import cut_windows
from hymate.errors import InputFault
from tests.hymate.data.small import vocabulary

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


def test_the_earliest_observations_are_kept_ties_in_file_order(tmp_path: Path) -> None:
    events: list[Event] = [
        (1, at(hour), code, None) for hour, code in [(1, "e"), (2, "d"), (2, "c"), (2, "b"), (3, "a")]
    ]
    site = dataset(tmp_path / "site", events, [(1, at(48), False), (1, at(49.5), True)], {1: "tuning"})
    task = TaskConfig(name="death", max_observations=3, keep="earliest")
    windows = cut_windows(site, task)
    assert windows.triplets.select("stay", "hours", "code").rows() == [
        (0, 1.0, "e"),
        (0, 2.0, "d"),
        (0, 2.0, "c"),
        (1, 0.5, "d"),
        (1, 0.5, "c"),
        (1, 0.5, "b"),
    ]
    assert windows.stays["observations"].to_list() == [3, 3]


@pytest.mark.parametrize(
    ("which", "hours", "others"),
    [("all", [10, 20, 30], 0), ("first", [10], 2), ("last", [30], 2), (1, [10], 2), (2, [10, 20], 1)],
)
def test_which_stays_of_a_subject_are_used(
    tmp_path: Path, which: Literal["all", "first", "last"] | int, hours: list[int], others: int
) -> None:
    """Subject 1's stay at 5 h and subject 2's at 40 h are too thin: they are neither first nor last."""
    events: list[Event] = [(1, at(hour), "HR", 1.0) for hour in (6, 15, 25)]
    events += [(2, at(hour), "HR", 1.0) for hour in (6, 15, 25)]
    labels = [(1, at(hour), True) for hour in (5, 10, 20, 30)]
    labels += [(2, at(hour), False) for hour in (10, 20, 30, 40)]
    site = dataset(tmp_path / "site", events, labels, {1: "train", 2: "held_out"})
    windows = cut_windows(site, TaskConfig(name="death", lookback_hours=8, stays_per_subject=which))
    assert windows.stays.select("subject_id", "prediction_time").rows() == [
        (subject, at(hour)) for subject in (1, 2) for hour in hours
    ]
    assert (
        windows.stays["stay"].to_list() == windows.triplets["stay"].to_list() == list(range(2 * len(hours)))
    )
    reason = {f"further stays of a subject (stays_per_subject {which})": 2 * others}
    assert windows.left_out == {
        "no split": 0,
        "fewer than 1 observations": 2,
        **({} if which == "all" else reason),
    }


def test_a_prediction_before_any_data(tmp_path: Path) -> None:
    events: list[Event] = [(1, None, "Age", 61.0), (1, at(5), "HR", 1.0)]
    site = dataset(tmp_path / "site", events, [(1, at(4), True), (2, at(4), True)], {1: "train", 2: "train"})
    windows = cut_windows(site, TaskConfig(name="death"))
    assert (len(windows.stays), len(windows.triplets), len(windows.static)) == (0, 0, 0)
    assert windows.left_out == {"no split": 0, "fewer than 1 observations": 2}
    anyone = cut_windows(site, TaskConfig(name="death", min_observations=0))
    assert anyone.stays["observations"].to_list() == [0, 0]
    assert (len(anyone.triplets), anyone.static.rows()) == (0, [(0, "Age", 61.0)])


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_daylight_saving_time_and_leap_days(
    tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows go by the clock the times were written with, wherever the computer stands."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    ends = [
        datetime(2021, 3, 28, 12),  # Berlin skips 2:00 to 3:00
        datetime(2021, 10, 31, 12),  # and has that hour twice
        datetime(2020, 3, 1, 12),  # after a leap day
        datetime(2021, 3, 1, 12),  # after none
        datetime(1900, 3, 1, 12),  # a century without one
    ]
    hour, instant = timedelta(hours=1), timedelta(microseconds=1)
    subjects = range(1, 1 + len(ends))
    events: list[Event] = [
        (subject, time_, code, None)
        for subject, end in zip(subjects, ends, strict=True)
        for time_, code in [
            (end - 24 * hour - instant, "before"),
            (end - 24 * hour, "first"),
            (end - 9.5 * hour, "2:30"),
            (end - 9 * hour, "3:00"),
            (end, "last"),
            (end + instant, "after"),
        ]
    ]
    labels = [(subject, end, True) for subject, end in zip(subjects, ends, strict=True)]
    site = dataset(tmp_path / "site", events, labels, dict.fromkeys(subjects, "train"))
    windows = cut_windows(site, TaskConfig(name="death", lookback_hours=24))
    monkeypatch.undo()
    time.tzset()
    expected = [(0.0, "first"), (14.5, "2:30"), (15.0, "3:00"), (24.0, "last")]
    assert windows.triplets.select("stay", "hours", "code").rows() == [
        (stay, hours, code) for stay in range(len(ends)) for hours, code in expected
    ]


def test_twenty_years_in_minutes(tmp_path: Path) -> None:
    """Single precision still tells the last minutes of twenty years apart, and keeps ties."""
    years = 20 * 365.25 * 24
    end = datetime(1975, 6, 1)
    minutes = [minute for minute in range(3000) for _ in range(1 + minute % 2)]
    events: list[Event] = [
        (1, end - timedelta(minutes=minute), f"code {i}", None) for i, minute in enumerate(minutes)
    ]
    site = dataset(tmp_path / "site", events, [(1, end, True)], {1: "train"})
    task = TaskConfig(name="death", lookback_hours=years, max_observations=10_000)
    hours = cut_windows(site, task).triplets["hours"].to_numpy().astype(np.float64)
    expected = np.round(years * 60) - np.sort(minutes)[::-1]
    assert np.round(hours * 60).tolist() == expected.tolist()
    assert (np.diff(hours) > 0).tolist() == (np.diff(expected) > 0).tolist()


def test_a_stay_of_a_hundred_thousand_observations(tmp_path: Path) -> None:
    count = 100_000
    minutes = np.sort(np.random.default_rng(0).integers(0, 2881, count))
    table = pl.DataFrame(
        {
            "subject_id": np.ones(count, np.int64),
            "time": pl.Series(minutes).cast(pl.Int64) * 60_000_000,
            "code": [f"code {i % 50}" for i in range(count)],
            "numeric_value": np.arange(count, dtype=np.float32),
        }
    ).with_columns(pl.col("time").cast(pl.Datetime("us")))
    end = datetime(1970, 1, 3)
    site = dataset(tmp_path / "site", [(2, end, "code 0", 0.0)], [(1, end, True)], {1: "train", 2: "train"})
    table.write_parquet(site.root / "data" / "long.parquet")
    whole = cut_windows(site, TaskConfig(name="death", max_observations=count))
    assert whole.stays["observations"].to_list() == [count]
    assert whole.triplets["value"].to_list() == list(range(count))
    assert whole.triplets["hours"].to_list() == (minutes / 60).astype(np.float32).tolist()
    codes = vocabulary(*(f"code {i}" for i in range(50)))
    store = prepare_store(tmp_path / "store", whole, codes, TaskConfig(name="death", max_observations=count))
    batch = collate(store, np.array([0]))
    assert batch.time.shape == (1, count)
    assert batch.time[0].tolist() == whole.triplets["hours"].to_list()
    assert (batch.code[0] - 1).tolist() == [i % 50 for i in range(count)]
    latest = cut_windows(site, TaskConfig(name="death"))
    assert latest.triplets["value"].to_list() == list(range(count - 880, count))
    earliest = cut_windows(site, TaskConfig(name="death", keep="earliest"))
    assert earliest.triplets["value"].to_list() == list(range(880))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../elsewhere"},
        {"name": "a/b"},
        {"name": ""},
        {"name": ".hidden"},
        {"lookback_hours": 0.0},
        {"lookback_hours": 2e6},
        {"lookback_hours": float("nan")},
        {"keep": "longest"},
        {"stays_per_subject": 0},
        {"stays_per_subject": "some"},
        {"max_observations": 0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TaskConfig.model_validate(wrong)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_every_setting_has_its_own_key() -> None:
    task = TaskConfig()
    others = [task.model_copy(update={field: "something else"}) for field in TaskConfig.model_fields]
    assert len({each.key for each in [task, *others]}) == 1 + len(TaskConfig.model_fields)
    assert TaskConfig(stays_per_subject=1).key != TaskConfig(stays_per_subject="first").key
    assert TaskConfig(lookback_hours=48).key == task.key
    assert task.key.startswith("in_hospital_mortality-")


@pytest.mark.parametrize("which", ["all", "first", "last", 2])
@pytest.mark.parametrize("keep", ["latest", "earliest"])
@pytest.mark.parametrize("seed", range(2))
def test_windows_equal_a_plain_filter(
    tmp_path: Path,
    seed: int,
    keep: Literal["latest", "earliest"],
    which: Literal["all", "first", "last"] | int,
) -> None:
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
    task = TaskConfig(
        name="death",
        lookback_hours=8.5,
        max_observations=12,
        min_observations=3,
        keep=keep,
        stays_per_subject=which,
    )
    windows = cut_windows(site, task)

    stays: dict[int, list[list[tuple[float, str, float | None]]]] = {}
    for subject, end, _ in sorted(labels):
        start = end - timedelta(hours=8.5)
        inside = [
            (time_, code, value)
            for owner, time_, code, value in events
            if owner == subject and time_ is not None and start <= time_ <= end
        ]
        inside.sort(key=lambda event: event[0])
        if len(inside) >= 3:
            inside = inside[-12:] if keep == "latest" else inside[:12]
            stays.setdefault(subject, []).append(
                [((time_ - start) / timedelta(hours=1), code, value) for time_, code, value in inside]
            )
    wanted = {"all": slice(None), "first": slice(1), "last": slice(-1, None), 2: slice(2)}[which]
    chosen = [stay for subject in sorted(stays) for stay in stays[subject][wanted]]
    assert windows.triplets.rows() == [(i, *triplet) for i, stay in enumerate(chosen) for triplet in stay]
    assert sum(windows.left_out.values()) + len(chosen) == len(labels)
