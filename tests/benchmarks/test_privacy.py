"""The benchmark of private steps measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.privacy import (
    HOOKS,
    MODES,
    PLAIN,
    added_memory,
    epoch_of,
    ratios,
    report,
    seconds_per_stay,
    some_of,
)
from benchmarks.stays import store_of
from benchmarks.train_step import Clock
from hymate.config import FinetuneConfig


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_each_mode_trains_on_the_same_stays(tmp_path: Path) -> None:
    store, vocabulary = store_of(None, 40, tmp_path)
    some = some_of(store, 4)
    assert len(some.rows("train")) == 4
    config = FinetuneConfig(batch_size=4)
    epochs = {mode: epoch_of(mode, some, vocabulary.size, config) for mode in MODES}
    clocks = {mode: Clock() for mode in MODES}
    assert {epoch(clocks[mode]) for mode, epoch in epochs.items()} == {4}
    assert {len(clock.stamps) for clock in clocks.values()} == {3}  # begin, before the step, end
    times = seconds_per_stay({mode: epochs[mode] for mode in (PLAIN, "flat")}, seconds=0.0)
    assert min(times.values()) > 0.0
    assert added_memory(epochs["flat"]) >= 0.0


def test_report_names_the_best_private_mode() -> None:
    times = {PLAIN: 0.5, "flat": 0.75, "ghost": 1.0, HOOKS: 0.6}
    found = report(times, {PLAIN: 100.0, "flat": 50.0, "ghost": 40.0, HOOKS: 200.0}, batch_size=2)
    assert found["best_mode"] == "flat"
    assert found["best_step_time_ratio"] == pytest.approx(1.5)
    assert found["best_memory_ratio"] == pytest.approx(0.5)
    assert found["step_time_ratio"] == ratios(times) == pytest.approx({"flat": 1.5, "ghost": 2.0, HOOKS: 1.2})
