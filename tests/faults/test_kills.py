"""SIGKILL, wherever the study stands: restarted, it ends in the bits of an undisturbed run.

One study is killed at every stage, and goes on each time: what a single kill leaves behind (in the run
folder, at a site, in SuperLink's database) is then what the next one meets.
"""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.ports import free_ports
from tests.faults.conftest import Build
from tests.faults.federation import SERVER, Federation, until
from tests.faults.wire import DOWN, UP, Wire

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500)]

NORTH = "hospital_1"
PIECE = 4000
"""Bytes: a piece at least so large, while weights are on their way, is of weights."""


def goes_on(one: Federation, server: subprocess.Popen[str], *parts: str) -> subprocess.Popen[str]:
    """SIGKILL at the coordinator, or to parts of it; then `--resume`, at once."""
    assert one.kill(SERVER, *parts) >= 1
    if parts:  # the command is left, and ends by itself: one line that says why
        assert one.finish(server) == 1, one.told()
        assert "the study ended early" in one.last_line()
        assert "--resume" in one.last_line()
        assert one.status()["state"] == "failed"
    assert not (one.run / "report.json").exists()
    return one.start_server("--resume")


def test_the_coordinator_is_killed_at_every_stage(federation: Build, undisturbed: dict[str, bytes]) -> None:
    """All its processes, sites keep running: before the first round, while weights go out, while sites
    train, after the last round."""
    one = federation()
    with Wire(*free_ports(1), one.port) as wire:
        one.write_site(NORTH, coordinator={"address": f"localhost:{wire.port}", "ca": "../../tls/ca.crt"})
        one.start_clients()
        server = one.start_server()
        until(lambda: one.asked("statistics"), "before the first round", alive=server)
        server = goes_on(one, server)

        until(lambda: one.outcome("prepare", 0, NORTH) == "replied", "weights go out next", alive=server)
        wire.hold(DOWN, PIECE)
        until(wire.held.is_set, "half of the weights have gone out", alive=server)
        assert one.asked("pretrain", 1)
        server = goes_on(one, server)
        wire.mend()

        until(lambda: one.works_on(NORTH, "finetune round 2"), "a site trains", alive=server)
        server = goes_on(one, server)

        until(lambda: one.asked("score"), "after the last round", alive=server)
        server = goes_on(one, server)
        assert one.finish(server) == 0, one.told()
    assert one.weights() == undisturbed
    assert one.told().count("going on after") + one.told().count("going on from") >= 4


def test_parts_of_the_coordinator_are_killed(federation: Build, undisturbed: dict[str, bytes]) -> None:
    """Only SuperLink, only the study's process: `flower-server` ends with the cause, not in silence."""
    one = federation()
    one.start_clients()
    server = one.start_server()
    until(lambda: one.works_on(NORTH, "pretrain round 1"), "a site trains", alive=server)
    server = goes_on(one, server, "server.gate")
    assert "SuperLink ended: killed by SIGKILL; go on with --resume" in one.told()
    until(lambda: one.works_on(NORTH, "finetune round 1"), "a site trains", alive=server)
    server = goes_on(one, server, "flwr-serverapp")
    assert "the study's process is gone" in one.told()
    assert one.finish(server) == 0, one.told()
    assert one.weights() == undisturbed


def test_a_site_is_killed_at_every_stage(federation: Build, undisturbed: dict[str, bytes]) -> None:
    """All its processes, then its service is started again: the study waits, and asks it again."""
    one = federation()
    with Wire(*free_ports(1), one.port) as wire:
        one.write_site(NORTH, coordinator={"address": f"localhost:{wire.port}", "ca": "../../tls/ca.crt"})
        one.start_clients()
        server = one.start_server()
        until(lambda: one.works_on(NORTH, "prepare"), "before the first round", alive=server)
        assert one.kill(NORTH) >= 2
        one.start_client(NORTH)

        until(lambda: one.works_on(NORTH, "pretrain round 1"), "it trains", alive=server)
        assert one.kill(NORTH) >= 2
        one.start_client(NORTH)

        until(lambda: one.works_on(NORTH, "finetune round 1"), "it trains again", alive=server)
        wire.hold(UP, PIECE)
        until(wire.held.is_set, "half of its weights have gone out", alive=server)
        assert one.kill(NORTH) >= 2
        wire.mend()
        one.start_client(NORTH)

        until(lambda: one.outcome("finetune", 2, NORTH) == "replied", "its last round", alive=server)
        assert one.kill(NORTH) >= 2
        one.start_client(NORTH)
        assert one.finish(server) == 0, one.told()
    assert one.weights() == undisturbed
    story = {
        phase: one.story(phase, number, NORTH)
        for phase, number in (("prepare", 0), ("pretrain", 1), ("finetune", 1))
    }
    for words in story.values():
        assert words[0] == "asked", story
        assert words[-1] == "replied", story
        assert {"lost", "retried"} & set(words), story
    assert "Traceback" not in one.told(NORTH)


def test_the_process_that_trains_is_killed(federation: Build, undisturbed: dict[str, bytes]) -> None:
    """As by the kernel, for want of memory: the site answers for it, and is asked once more."""
    one = federation()
    one.start_clients()
    server = one.start_server()
    until(lambda: one.works_on(NORTH, "pretrain round 1"), "it trains", alive=server)
    one.kill_worker(NORTH)
    assert one.finish(server) == 0, one.told()
    assert one.weights() == undisturbed
    assert one.story("pretrain", 1, NORTH)[-1] == "replied"
    assert f"{NORTH} retried: failed:" in one.told()
