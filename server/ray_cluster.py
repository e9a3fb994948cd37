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
import threading
from collections.abc import Callable, Iterator
from typing import Any

from server.processes import MARK, end_marked, temporary_home
from server.simulation_resources import OBJECT_STORE, Resources

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # call nobody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


@contextlib.contextmanager
def ray_cluster(resources: Resources, address: str | None) -> Iterator[Callable[..., Any]]:
    """Ray, and how to start an actor of a class in it.

    Args:
        address: of a cluster that runs already ("auto": the one this machine is in); None: one of our own.
    """
    mark = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment({**SETTINGS, **os.environ, MARK: mark}))
        home = stack.enter_context(temporary_home())
        stack.callback(end_marked, mark)
        import ray

        stack.callback(ray.shutdown)
        with _own_signals():
            if address is not None:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                ray.init(
                    num_cpus=math.ceil(resources.workers * resources.cpus),
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=str(home),
                )
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
        remote: Any = ray.remote  # its types know functions of a few arguments only
        yield lambda kind, *arguments: remote(**options)(kind).remote(*arguments)


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
