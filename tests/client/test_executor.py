"""A message's process: forked from one that holds libraries only, and like a new one in all that matters."""

from __future__ import annotations

import http.server
import inspect
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec
from flwr.supernode.runtime import run_clientapp

from client import executor
from tests.client.coordinator import until

LOOK = """
import importlib, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
import torch
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "packages": sorted({name.split(".")[0] for name in sys.modules}),
    "cuda": torch.cuda.is_initialized(),
}))
"""


@pytest.mark.parametrize("own", [False, True])
def test_the_process_that_is_forked_has_one_thread_and_nothing_that_starts_more(own: bool) -> None:
    names = executor.libraries(own=own)
    # OpenBLAS starts threads, too, but begins them anew in a fork.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", LOOK, *names]
    told = subprocess.run(words, env=environment, check=True, capture_output=True, text=True, timeout=300)
    found = json.loads(told.stdout)
    if sys.platform == "linux":
        assert found["threads"] == 1
    assert not {"polars", "ray", "server"} & set(found["packages"])
    assert "torch" in found["packages"]
    assert ("sklearn" in found["packages"]) == (find_spec("pandas") is None)
    assert ({"client", "hymate", "strategies"} <= set(found["packages"])) == own
    assert not found["cuda"]


class Asked(http.server.BaseHTTPRequestHandler):
    """A runtime API that refuses everyone and remembers the tokens."""

    tokens: list[str]

    def do_POST(self) -> None:
        self.tokens.append(" ".join(str(value) for value in self.headers.values()))
        self.send_response(403)
        self.end_headers()

    def log_message(self, format: str, *words: object) -> None:
        pass


@pytest.fixture
def runtime() -> Iterator[tuple[str, list[str]]]:
    class Handler(Asked):
        tokens: list[str] = []  # noqa: RUF012

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", Handler.tokens
        server.shutdown()


def test_every_message_has_a_process_of_its_own_that_ends(runtime: tuple[str, list[str]]) -> None:
    address, tokens = runtime
    made = executor.ForkingExecutor(())
    for number in (1, 2):
        spec = ExecutionSpec(
            task_type=TaskType.CLIENT_APP,
            runtime_api_address=address,
            token=f"token-{number}",
            insecure=True,
            root_certificates_path=None,
            runtime_dependency_install=False,
            parent_pid=os.getpid(),
            suppress_output=False,
            task_id=number,
        )
        assert made.launch(spec).status == "accepted"
    processes = list(made._running)
    assert len({process.pid for process in processes} | {os.getpid()}) == 3
    until(lambda: all(any(f"token-{n}" in told for told in tokens) for n in (1, 2)), "both have asked")
    for process in processes:
        process.join(60)
        assert process.exitcode == 1, "the runtime refused it"
    made.reconcile()
    assert made._running == []


def test_it_asks_for_no_message_while_it_works_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "LONGEST_WAIT_S", 30.0)
    made = executor.ForkingExecutor(())
    process = made._context.Process(target=time.sleep, args=(1.0,))
    process.start()
    made._running.append(process)
    made.reconcile()
    assert process.exitcode == 0
    assert made._running == []
    slept: list[float] = []
    monkeypatch.setattr(executor.time, "sleep", slept.append)
    made.reconcile()
    monkeypatch.setattr(executor.time, "monotonic", lambda: 1e9)
    made.reconcile()
    assert slept[0] < slept[1] == 30.0


def test_what_still_works_is_ended_with_the_executor() -> None:
    made = executor.ForkingExecutor(())
    process = made._context.Process(target=time.sleep, args=(600,))
    process.start()
    made._running.append(process)
    made.close()
    process.join(30)
    assert process.exitcode == -15


def test_a_fork_draws_other_numbers_than_the_one_before() -> None:
    draws = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        executor.forget_randomness()
        draws.append((random.random(), float(np.random.random())))
    assert draws[0][0] != draws[1][0]
    assert draws[0][1] != draws[1][1]


def test_flwr_has_the_parts_that_are_replaced() -> None:
    assert "get_executor" in vars(run_superexec)
    assert "initial_backoff" in inspect.signature(run_clientapp.pull_and_inflate_object_from_tree).parameters
    taken = set(inspect.signature(run_clientapp.run_clientapp).parameters)
    assert {"runtime_api_address", "token", "insecure", "certificates", "parent_pid"} < taken
