"""Updates become part of the sum as they come; only those nobody can judge yet wait, on disk."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from flwr.serverapp import Grid

from server.app import run_study
from server.held_updates import HeldUpdates
from strategies.base import Arrays
from strategies.running_mean import RunningMean
from tests.in_process import InProcessGrid, lay_out, small_study


def test_only_a_first_round_s_updates_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    waiting: list[int] = []
    hold, add, pull = HeldUpdates.hold, RunningMean.add, InProcessGrid.pull_messages

    def holding(self: HeldUpdates, site: str, arrays: Arrays) -> None:
        held.append(site)
        hold(self, site, arrays)

    def adding(self: RunningMean, arrays: Arrays, weight: float) -> None:
        waiting.append(len(grid.sent) - len(grid.replies))
        add(self, arrays, weight)

    def one_by_one(self: InProcessGrid, message_ids: list[str]) -> list[object]:
        return list(pull(self, sorted(message_ids)[:1]))

    monkeypatch.setattr(HeldUpdates, "hold", holding)
    monkeypatch.setattr(RunningMean, "add", adding)
    monkeypatch.setattr(InProcessGrid, "pull_messages", one_by_one)
    sites = lay_out(tmp_path, hospitals=3)
    grid = InProcessGrid(tmp_path, sites)
    study = small_study(pretrain={"rounds": 0}, finetune={"rounds": 2, "batch_size": 16})
    run_study(cast(Grid, grid), study, tmp_path, expected_sites=3, clock=grid.time)
    assert sorted(held) == sites
    # Each is followed by FedAvg's own mean of the one mean that it is told.
    assert waiting == [0, 0, 0, 0, 2, 1, 0, 0]  # sites still at work when an update was added


def test_held_updates_come_back_as_they_were() -> None:
    held = HeldUpdates()
    given = {
        site: {"w": np.full((2, 3), number, np.float32), "b": np.array(number, np.float64)}
        for number, site in enumerate("abc")
    }
    for site, arrays in given.items():
        held.hold(site, arrays)
    found = dict(held.among(["c", "x", "a"]))
    assert list(found) == ["c", "a"]
    for site, arrays in found.items():
        for name, array in arrays.items():
            assert array.dtype == given[site][name].dtype
            assert np.array_equal(array, given[site][name])
    held.close()
