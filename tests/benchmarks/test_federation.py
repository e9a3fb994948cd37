"""The overhead benchmark's own arithmetic and its byte count."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest

from benchmarks.federation import Rounds, Turns, bare_bundle
from benchmarks.ports import free_ports
from benchmarks.processor import Processor
from benchmarks.relay import Relay
from client.approval import objection_to
from tests.server.deployed import TINY


def test_a_round_s_time_leaves_out_its_own_training_and_the_first_round() -> None:
    found = Rounds(ends=[100.0, 103.0, 107.0, 117.0], training=[50.0, 1.0, 1.0, 2.0])
    assert found.outside() == pytest.approx([2.0, 3.0, 8.0])


def test_turns_are_summed_up_over_their_rounds() -> None:
    relay, processor = Relay(0, 0), Processor()
    relay.seen = [(100.0, 5), (101.0, 600), (104.0, 300), (210.0, 900), (214.0, 7)]
    processor.seen = [(100.0, 1.0), (104.0, 5.0), (200.0, 6.0), (210.0, 8.0), (215.0, 9.0)]
    turns = Turns("ours")
    turns.add(Rounds([100.0, 102.0, 104.0], [0.0, 1.0, 0.0]), relay, processor)
    turns.add(Rounds([200.0, 210.0], [0.0, 0.0]), relay, processor)
    assert turns.seconds() == [1.0, 2.0, 10.0]
    assert (turns.median(), turns.quartiles()) == (2.0, [1.5, 6.0])
    assert turns.bytes(sites=2) == (600 + 300 + 900) / 3 / 2
    assert turns.processor() == (4.0 + 2.0) / 3
    one = Turns("bare", [Rounds([0.0, 3.0], [0.0, 1.0])])
    assert one.quartiles() == [2.0, 2.0]


def test_processor_seconds_are_those_of_the_processes_started_here() -> None:
    work = "import time; end = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    # A child's child counts, and what has ended still does.
    words = [
        sys.executable,
        "-c",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])",
    ]
    keep = "; import time; time.sleep(60)"
    with Processor() as processor:
        begun = time.time()
        process = subprocess.Popen([*words[:2], words[2] + keep])
        try:
            deadline = time.monotonic() + 60
            while processor.between(begun, time.time()) < 0.5:  # some may pass before `begun`: see `between`
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()


@pytest.mark.deployment
@pytest.mark.slow
def test_a_small_benchmark_has_all_its_figures() -> None:
    words = ["--json", "--rounds", "2", "--turns", "1", "--stays", "40", "--model", json.dumps(TINY)]
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.federation", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    for kind in ("overhead", "bare", "stock"):
        low, high = found[f"{kind}_s_quartiles"]
        assert low == found[f"{kind}_s_per_round"] == high > 0  # there is one round
    assert found["ratio"] == found["overhead_s_per_round"] / found["bare_s_per_round"]
    assert found["ratio_to_stock"] == found["overhead_s_per_round"] / found["stock_s_per_round"]
    assert found["processor_ratio"] > 0
    assert (found["sites"], found["rounds"], found["model_arrays"]) == (2, 1, 39)
    # The model goes out and comes back; the rest is framing and the request.
    assert found["bytes_per_round"] > 2 * found["model_bytes"]
    assert found["bytes_per_round"] < 2 * found["model_bytes"] + 200_000
    assert found["bytes_ratio"] == found["bytes_per_round"] / (2 * found["model_bytes"])


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
