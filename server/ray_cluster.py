"""Ray for the length of one simulation: started here, or found on a cluster that runs already.

What is started here carries a mark by which it is found again, and writes into one temporary folder: both
are gone afterwards, and what a command left that was killed with SIGKILL is swept by the next one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hymate.errors import InputFault
from hymate.processes import MARK, end_marked, temporary_home
from server.simulation_resources import OBJECT_STORE, Resources

QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}
ANSWER_S = 10.0
"""For a cluster's head to take a connection."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # call nobody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_max_direct_call_object_size": str(16 * 2**20),  # bytes; an update need not pass the object store
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


@contextlib.contextmanager
def ray_cluster(resources: Resources, address: str | None) -> Iterator[Callable[..., Any]]:
    """Ray, and how to start an actor of a class in it.

    Args:
        address: of a cluster that runs already ("auto": the one this machine is in); None: one of our own.

    Raises:
        InputFault: there is no Ray at `address`, or it does not start here.
    """
    mark = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        caches = {"TORCHINDUCTOR_CACHE_DIR": str(home / "torch")}
        stack.enter_context(_environment({**SETTINGS, **caches, **os.environ, MARK: mark}))
        stack.callback(end_marked, mark)
        import ray

        stack.callback(ray.shutdown)
        try:
            _demand_answer(address)
            with _own_signals():
                ray.init(**_settings(resources, address, home))
        except (OSError, RuntimeError, ValueError) as fault:
            cause = str(fault).strip().splitlines()[0]
            if address is not None:
                remedy = "start Ray there ('ray start'), or leave the key out"
                raise InputFault("simulation.address", f"no Ray at '{address}': {cause}", remedy) from None
            remedy = "let TMPDIR name a folder with a short path and free space"
            raise InputFault("Ray", f"does not start: {cause}", remedy) from None
        # Ray would remember every message for its dashboard, up to 100,000 of them at 3.5 KB.
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "enable_task_events": False}
        remote: Any = ray.remote  # its types know functions of a few arguments only
        yield lambda kind, *arguments: remote(**options)(kind).remote(*arguments)


def _demand_answer(address: str | None) -> None:
    """`OSError` where nobody listens at HOST:PORT: Ray itself would go on trying for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()


def _settings(resources: Resources, address: str | None, home: Path) -> dict[str, Any]:
    """How Ray is joined, or started."""
    if address is not None:
        return {"address": address, **QUIET}
    return {
        "address": "local",  # whatever else of Ray runs on this machine
        "num_cpus": math.ceil(resources.workers * resources.cpus),
        "object_store_memory": OBJECT_STORE,
        "include_dashboard": False,
        "_temp_dir": str(home),
        **QUIET,
    }


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """What Ray and the processes it starts are told."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM over when it starts; what we do with it stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
