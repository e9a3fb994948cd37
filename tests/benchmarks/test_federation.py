"""The overhead benchmark's own arithmetic and its byte count."""

from __future__ import annotations

import socket
import time

import pytest

from benchmarks.federation import Rounds, bare_bundle, free_ports
from benchmarks.relay import Relay
from client.approval import objection_to


def test_a_round_s_time_leaves_out_its_own_training_and_the_first_round() -> None:
    found = Rounds(ends=[100.0, 103.0, 107.0, 117.0], training=[50.0, 1.0, 1.0, 2.0])
    assert found.seconds() == pytest.approx(3.0)  # of 2, 3 and 8


def test_the_relay_passes_everything_on_and_counts_both_ways() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as server, Relay(port, server.getsockname()[1]) as relay:
        before = time.time()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
            called, _ = server.accept()
            with called:
                called.settimeout(10)
                caller.sendall(b"a" * 100_000)
                assert len(_received(called, 100_000)) == 100_000
                called.sendall(b"b" * 7)
                assert _received(caller, 7) == b"b" * 7
        assert relay.between(before, time.time()) == 100_007
        assert relay.between(before - 10, before) == 0
    with socket.create_server(("127.0.0.1", port)):
        pass  # the relay has left its port


def test_the_bare_app_runs_only_where_a_site_approves_it() -> None:
    bundle = bare_bundle()
    assert objection_to(bundle.content, bundle.sha256) is None
    assert objection_to(bundle.content, None) is not None


def _received(end: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        chunk = end.recv(count - len(content))
        assert chunk, "closed too early"
        content += chunk
    return content
