"""Who is handed out first, what becomes of a worker that died, and on what a simulation plans."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from flwr.app import Message, RecordDict

from hymate.errors import InputFault
from server import simulated_grid
from server.failure import StudyFailure
from server.ray_cluster import ray_cluster
from server.simulated_grid import Costs, SimulatedGrid
from server.simulation_config import SimulationConfig
from server.simulation_estimate import estimated_seconds, seconds_per_observation
from server.simulation_layout import SimulatedSite
from server.simulation_resources import GIB, choose_resources
from tests.in_process import lay_out, small_study

MADE = {"synthetic": {"hospitals": 2, "stays": 20}}


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
        config = SimulationConfig.model_validate({**MADE, **given})
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


class Workers:
    """In place of Ray: an answer is there as soon as it is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Message], Any]) -> None:
        self.started = 0
        self.asked: list[int] = []
        """Nodes, in the order in which they were handed out."""
        self.room = math.inf
        """For so many workers: those started later are never ready."""
        self._answer = answer
        self._never: list[object] = []
        monkeypatch.setattr(simulated_grid.ray, "wait", self._wait)
        monkeypatch.setattr(simulated_grid.ray, "get", lambda ref: ref())

    def start(self) -> Any:
        self.started += 1
        ask, ready = (self._ask, object) if self.started <= self.room else (self._pend, self._pend)
        return SimpleNamespace(answer=SimpleNamespace(remote=ask), ready=SimpleNamespace(remote=ready))

    def _pend(self, *given: Any) -> object:
        self._never.append(object())
        return self._never[-1]

    def _wait(self, refs: list[Any], **how: object) -> tuple[list[Any], list[Any]]:
        return [ref for ref in refs if ref not in self._never][:1], []

    def _ask(self, message: Message, context: Any, arrays: Any) -> Callable[[], Any]:
        self.asked.append(context.node_id)
        return lambda: self._answer(message)


def replies(grid: SimulatedGrid, nodes: list[int]) -> list[Message]:
    """What these nodes answer to a message, once all have."""
    ids = grid.push_messages(
        [Message(RecordDict(), dst_node_id=node, message_type="train") for node in nodes]
    )
    found: list[Message] = []
    deadline = time.monotonic() + 30
    while len(found) < len(ids):
        assert time.monotonic() < deadline
        grid.wait(1.0)
        found += grid.pull_messages(ids)
    return found


SITES = [SimulatedSite(Path("site.yaml"), size) for size in (100, 300, 50)]


def test_the_largest_site_goes_first_and_each_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(monkeypatch, lambda message: (Message(RecordDict(), reply_to=message), 1.0))
    grid = SimulatedGrid(SITES, 1, workers.start)
    assert len(replies(grid, [1, 2, 3])) == 3
    assert workers.asked == [2, 1, 3]
    grid.close()
    assert workers.started == 1


def test_a_worker_that_died_costs_one_answer_and_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(message: Message) -> Any:
        if message.metadata.dst_node_id == 2:
            raise ray.exceptions.ActorDiedError
        return Message(RecordDict(), reply_to=message), 1.0

    workers = Workers(monkeypatch, answer)
    grid = SimulatedGrid(SITES, 1, workers.start)
    found = {message.metadata.src_node_id: message for message in replies(grid, [1, 2, 3])}
    assert [node for node, message in found.items() if message.has_error()] == [2]
    assert "its process ended" in found[2].error.reason
    assert workers.asked == [2, 1, 1, 3]  # the message that the dead worker had not begun is another's
    assert workers.started == 2
    grid.close()


def test_a_worker_has_its_next_message_while_more_wait_than_there_are_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[int] = []

    def answer(message: Message) -> Any:
        waited.append(len(workers.asked))
        return Message(RecordDict(), reply_to=message), 1.0

    workers = Workers(monkeypatch, answer)
    grid = SimulatedGrid([SimulatedSite(Path("site.yaml"), 100)] * 6, 2, workers.start)
    assert len(replies(grid, [1, 2, 3, 4, 5, 6])) == 6
    grid.close()
    # Two at work and one behind each; as soon as only two are left, they go to whoever is idle first.
    assert waited == [4, 4, 5, 6, 6, 6]


def test_where_a_dead_worker_finds_no_room_again_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(message: Message) -> Any:
        if message.metadata.dst_node_id == 2:
            raise ray.exceptions.ActorDiedError
        return Message(RecordDict(), reply_to=message), 1.0

    workers = Workers(monkeypatch, answer)
    workers.room = 2
    grid = SimulatedGrid(SITES, 2, workers.start)
    assert len(replies(grid, [1, 2, 3])) == 3
    assert len(replies(grid, [1, 3])) == 2
    assert workers.started == 3
    grid.close()


def test_where_ray_fails_the_study_ends_instead_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(monkeypatch, lambda message: None)
    monkeypatch.setattr(simulated_grid.ray, "wait", lambda refs, **how: 1 / 0)
    grid = SimulatedGrid(SITES, 1, workers.start)
    with pytest.raises(StudyFailure, match="Ray failed: division by zero"):
        replies(grid, [1])
    grid.close()


def test_where_no_cluster_answers_it_is_one_line() -> None:
    resources = choose_resources(SimulationConfig.model_validate(MADE), 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with (
            pytest.raises(InputFault, match=f"no Ray at '{address}': .*Connection refused"),
            ray_cluster(resources, address),
        ):
            pass


def test_where_ray_cannot_start_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = choose_resources(SimulationConfig.model_validate(MADE), 1)
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with (
        pytest.raises(InputFault, match="let TMPDIR name a folder with a short path"),
        ray_cluster(resources, None),
    ):
        pass
    assert list(deep.iterdir()) == []
