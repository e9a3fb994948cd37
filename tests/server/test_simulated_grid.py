"""Who is handed out first, and on what a simulation plans."""

from __future__ import annotations

import psutil
import pytest

from hymate.errors import InputFault
from server.simulated_grid import Costs
from server.simulation_config import SimulationConfig
from server.simulation_resources import GIB, choose_resources


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
