"""What benchmarks.data measures is what it says."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import stopwatch as stopwatch_module
from benchmarks.apart import apart, peak_gib
from benchmarks.data import answer_all, iterate, open_once
from benchmarks.invented import LONGEST, TASK, stay_lengths, write_invented
from benchmarks.stopwatch import stopwatch
from hymate.config import TaskConfig
from hymate.data.meds import MedsDataset
from hymate.data.tasks import cut_windows

STAYS, TRIPLETS = 200, 60_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("invented") / "meds"
    write_invented(folder, STAYS, TRIPLETS)
    return folder


def test_the_data_set_holds_what_was_asked_for(root: Path) -> None:
    dataset = MedsDataset.open(root)  # also checks order, contiguity and values
    windows = cut_windows(dataset, TaskConfig(name=TASK))
    assert (len(windows.stays), len(windows.triplets)) == (STAYS, TRIPLETS)
    assert set(windows.left_out.values()) == {0}
    assert len(windows.static) == 2 * STAYS
    events = dataset.events()
    late = len(events) - TRIPLETS - 2 * STAYS
    assert 0.09 * TRIPLETS < late <= 0.1 * TRIPLETS
    lengths = windows.stays["observations"].to_numpy()
    assert (lengths.min() >= 1, lengths.max() <= LONGEST) == (True, True)
    assert np.std(np.log(lengths)) == pytest.approx(0.35, abs=0.05)
    ties = windows.triplets.select("stay", "hours").is_duplicated().mean()
    assert ties is not None
    assert ties > 0.05
    assert windows.triplets["code"].value_counts()["count"].max() > TRIPLETS / 10


@pytest.mark.parametrize("triplets", [10, 4321, 10 * LONGEST])
def test_lengths_add_up(triplets: int) -> None:
    lengths = stay_lengths(10, triplets, np.random.default_rng(0))
    assert (lengths.sum(), lengths.min() >= 1, lengths.max() <= LONGEST) == (triplets, True, True)
    with pytest.raises(ValueError, match="10 stays hold 10 to 8800 triplets"):
        stay_lengths(10, 9, np.random.default_rng(0))


def test_figures_of_a_small_site(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    again = answer_all(root, cache, False)
    figures = answer_all(root, cache, True)
    for found in (figures, again):
        assert (found["stays"], found["triplets"]) == (STAYS, TRIPLETS)
        assert found["prepare_s"] == pytest.approx(
            found["describe_s"] + found["statistics_s"] + found["store_s"]
        )
        assert 0 < sum(found["parts_s"].values()) <= found["prepare_s"]
        assert min(found["parts_s"].values()) > 0
    opened = open_once(root, cache, figures["vocabulary_hash"])
    assert opened["open_ms"] > 0
    assert opened["message_ms"] > 0
    rates = iterate(root, cache, figures["vocabulary_hash"], 1)
    assert rates["iterate_triplets_per_s_per_core"] == min(rates["epochs_triplets_per_s"].values()) > 0
    assert all(0 <= waste < 0.5 for waste in rates["padding_waste"].values())


def test_windows_are_cut_once_or_thrice(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    events = MedsDataset.events

    def counted(dataset: MedsDataset) -> object:
        nonlocal reads
        reads += 1
        return events(dataset)

    monkeypatch.setattr(MedsDataset, "events", counted)
    for keep, expected in ((True, 1), (False, 3)):
        reads = 0
        answer_all(root, tmp_path / "cache", keep)
        assert reads == expected


class Nested:
    """One function inside another, on a clock that a test turns."""

    now = 0.0

    def outer(self) -> None:
        Nested.now += 1
        self.inner()
        Nested.now += 2
        self.inner()

    def inner(self) -> None:
        Nested.now += 10


def test_the_stopwatch_counts_every_second_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch_module, "clocks", lambda: np.array([Nested.now, 2 * Nested.now]))
    with stopwatch({"outer": (Nested, "outer"), "inner": (Nested, "inner")}) as spent:
        Nested().outer()
        Nested.now += 100
    assert {name: both.tolist() for name, both in spent.items()} == {"outer": [3, 6], "inner": [20, 40]}
    before = Nested.now
    Nested().outer()
    assert Nested.now == before + 23
    assert spent["outer"].tolist() == [3, 6], "the functions are their own again"


def _hold(mebibytes: int) -> dict[str, float]:
    held = np.ones(mebibytes << 17)
    return {"gib": peak_gib(), "sum": float(held[::4096].sum()), "at": time.time()}


def test_peak_memory_is_that_of_the_process(tmp_path: Path) -> None:
    small, large = apart(_hold, 1), apart(_hold, 300)
    assert large["gib"] - small["gib"] == pytest.approx(299 / 1024, rel=0.1)
