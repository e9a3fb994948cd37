"""Who is handed out first, and on what a simulation plans."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from hymate.errors import InputFault
from server.simulated_grid import Costs
from server.simulation_config import SimulationConfig
from server.simulation_estimate import estimated_seconds, seconds_per_observation
from server.simulation_resources import GIB, choose_resources
from tests.in_process import lay_out, small_study


def test_costs_go_by_size_until_they_were_measured() -> None:
    costs = Costs({1: 100, 2: 300, 3: 50})
    assert sorted((1, 2, 3), key=lambda node: costs.expected("train", node)) == [3, 1, 2]
    costs.measured("train", 1, 10.0)
    assert costs.expected("train", 1) == 10.0
    assert costs.expected("train", 2) == pytest.approx(30.0)  # at the pace of the one that was measured
    costs.measured("train", 3, 60.0)
    assert costs.expected("train", 3) == 60.0
    assert costs.expected("evaluate", 2) == 300  # another kind of message: nothing is known


def test_workers_are_as_many_as_cores_and_memory_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def free(gib: float) -> None:
        memory = type("Memory", (), {"available": gib * GIB})
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    def workers(sites: int = 100, **given: object) -> int:
        config = SimulationConfig.model_validate({"synthetic": {"hospitals": 2, "stays": 20}, **given})
        return choose_resources(config, sites).workers

    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    free(100)
    assert workers() == 8
    assert workers(sites=3) == 3
    assert workers(resources={"cpus": 0.5}) == 16
    assert workers(resources={"memory_gib": 30}) == 3
    assert workers(workers=5) == 5
    free(4)
    assert workers() == 2
    free(2)
    with pytest.raises(InputFault, match="not one hospital fits this machine's memory"):
        workers()
    assert workers(workers=1) == 1  # the user knows better


def test_an_estimate_goes_by_observations_rounds_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.simulation_estimate.seconds_per_observation", lambda study: 0.001)
    lay_out(tmp_path, hospitals=2, stays=60)
    data = sorted(tmp_path.glob("data/*/data/**/*.parquet"))

    def seconds(workers: int, **changes: object) -> float:
        study = small_study(pretrain={"rounds": 0}, **changes)
        return estimated_seconds(study, data, sites=2, workers=workers)

    one = seconds(1, finetune={"rounds": 5})
    assert seconds(2, finetune={"rounds": 5}) == pytest.approx(one / 2)
    assert seconds(1, finetune={"rounds": 10}) == pytest.approx(2 * one)
    trained = seconds(1, finetune={"rounds": 5, "local_epochs": 2}) - one
    assert trained == pytest.approx(one - 2 * 5 * 0.05)
    assert 0.001 * 5 * 0.7 * 2 * 60 * 30 < trained < 0.001 * 5 * 0.7 * 2 * 60 * 200  # 30 to 200 a stay


def test_one_step_of_the_model_is_timed() -> None:
    seconds = seconds_per_observation(small_study())
    assert 0 < seconds < 1
