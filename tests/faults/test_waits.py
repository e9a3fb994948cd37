"""A site that is slow, and a network that is gone for a while: the study waits as long as it was told to."""

from __future__ import annotations

import time

import psutil
import pytest

from benchmarks.ports import free_ports
from tests.faults.conftest import Build
from tests.faults.federation import until
from tests.faults.wire import Wire

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NORTH = "hospital_1"
OUTAGE_S = 30.0
DEADLINE_S = 30.0


def test_the_network_is_cut_for_half_a_minute(federation: Build, undisturbed: dict[str, bytes]) -> None:
    """While a site trains: nothing arrives in either direction, then connections are new."""
    one = federation()
    with Wire(*free_ports(1), one.port) as wire:
        one.write_site(NORTH, coordinator={"address": f"localhost:{wire.port}", "ca": "../../tls/ca.crt"})
        one.start_clients()
        server = one.start_server()
        until(lambda: one.works_on(NORTH, "pretrain round 1"), "it trains", alive=server)
        wire.cut()
        time.sleep(OUTAGE_S)
        wire.mend()
        assert one.finish(server) == 0, one.told()
    assert one.weights() == undisturbed
    assert one.story("pretrain", 1, NORTH)[-1] == "replied"


def test_a_site_twice_as_slow_as_the_deadline(federation: Build) -> None:
    """Its processes stand still for two deadlines: it is late, which is told; the study goes on."""
    rules = {"deadline_minutes": DEADLINE_S / 60, "quorum": 1, "pause_minutes": 0.1}
    one = federation(study={"participation": rules})
    one.start_clients()
    server = one.start_server()
    until(lambda: one.works_on(NORTH, "pretrain round 1"), "it trains", alive=server)
    still = one.processes(NORTH)
    for process in still:
        process.suspend()
    time.sleep(2 * DEADLINE_S)
    for process in still:
        try:
            process.resume()
        except psutil.NoSuchProcess:
            continue
    assert one.finish(server) == 0, one.told()
    late = next(line for line in one.lines() if line["outcome"] == "late")
    assert (late["site"], late["phase"], late["round"]) == (NORTH, "pretrain", 1)
    assert late["reason"] == "no reply within 0.5 min"
    assert f"{NORTH} late: no reply within 0.5 min" in one.told()
