"""Where a site's messages are worked on: a process for each, forked from one that has its imports done.

    python -m client.executor [--own] --insecure --runtime-api-address HOST:PORT --parent-pid PID

Flower's `flower-superexec` with another way to start a ClientApp. Flower starts a new Python for every
message, and importing torch costs it seconds each time. Here one process imports the libraries once and
does nothing else; each message gets a fork of it. So every message still has a process of its own, which
has seen no other message and ends with its answer.

The process that is forked imports no data and nothing that starts threads, which a fork would be without:
polars does. `--own` adds this project's own modules; not where the site approves of another app, whose
modules may have the same names.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult, SubprocessExecutor

LIBRARIES: tuple[str, ...] = (
    "flwr.clientapp",
    "flwr.supercore.superexec.executor",
    "flwr.supernode.runtime.run_clientapp",
    "pydantic",
    "safetensors.torch",
    "torch",
    "torch._dynamo",
    "yaml",
)
SCORES = "sklearn.metrics"
"""Imported beforehand only where pandas is not installed: it would bring it along, pandas brings pyarrow,
and that starts a thread."""
OWN: tuple[str, ...] = ("client.app", "client.evaluation", "client.training", "strategies.registry")
NAME = "flwr-clientapp"
PR_SET_NAME = 15
LONGEST_WAIT_S = 0.5
FIRST_BACKOFF_S = 0.05
"""Wait for a part of a message that is still on its way; Flower's own first wait is 1 s."""


def start(address: str, *, own: bool) -> None:
    """Start this module for the SuperNode in this process, whose runtime API listens at `address`.

    `own`: the site runs the installed release's app and no other.
    """
    words = ["--insecure", "--runtime-api-address", address, "--parent-pid", str(os.getpid())]
    subprocess.Popen([sys.executable, "-m", "client.executor", *(["--own"] if own else []), *words])


class ForkingExecutor(SubprocessExecutor):
    """Flower's executor of subprocesses, but that ClientApps are forked."""

    def __init__(self, modules: Sequence[str]) -> None:
        """Args: modules: what the process that is forked imports beforehand."""
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(list(modules))
        # No library may ask CUDA itself whether it is there: a fork of that process could not use it.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self._running: list[BaseProcess] = []
        self._idle_since = time.monotonic()
        forkserver.ensure_running()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Fork for a ClientApp's message; start a program for anything else."""
        if spec.task_type is not TaskType.CLIENT_APP:
            return super().launch(spec)
        ca = spec.root_certificates_path
        task = {
            "runtime_api_address": spec.runtime_api_address,
            "token": spec.token,
            "insecure": spec.insecure,
            "certificates": Path(ca).read_bytes() if ca else None,
            "parent_pid": spec.parent_pid,
            "runtime_dependency_install": spec.runtime_dependency_install,
        }
        process = self._context.Process(target=work, args=(task,), name=NAME)
        process.start()
        self._running.append(process)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Wait a little before Flower asks for the next message.

        A site works on one message at a time: until that is done there is none, and asking would only
        take the processor from the training. After that the next one may be there at once, or in hours.
        """
        if self._running:
            wait([process.sentinel for process in self._running], LONGEST_WAIT_S)
            self._running = [process for process in self._running if process.is_alive()]
            self._idle_since = time.monotonic()
        else:
            time.sleep(min(LONGEST_WAIT_S, (time.monotonic() - self._idle_since) / 20))

    def close(self) -> None:
        """End those that have not."""
        for process in self._running:
            process.terminate()


def work(task: dict[str, Any]) -> None:
    """In the fork: what the command `flwr-clientapp` does."""
    from flwr.supernode.runtime import run_clientapp

    sys.argv = [NAME]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, NAME.encode())
    forget_randomness()
    if (pull := vars(run_clientapp).get("pull_and_inflate_object_from_tree")) is not None:
        vars(run_clientapp)["pull_and_inflate_object_from_tree"] = partial(
            pull, initial_backoff=FIRST_BACKOFF_S
        )
    run_clientapp.run_clientapp(**task)


def libraries(*, own: bool) -> tuple[str, ...]:
    """What the process that is forked imports beforehand."""
    scores = () if importlib.util.find_spec("pandas") else (SCORES,)
    return LIBRARIES + scores + (OWN if own else ())


def forget_randomness() -> None:
    """What a new process draws from the machine must not be the same in every fork."""
    import numpy as np

    random.seed()
    np.random.seed()


def main() -> None:
    """Be `flower-superexec` with a `ForkingExecutor`; with its own one where flwr is built otherwise."""
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec import run_superexec

    own = "--own" in sys.argv
    if own:
        sys.argv.remove("--own")
    modules = libraries(own=own)
    if "get_executor" in vars(run_superexec):
        try:
            forking = ForkingExecutor(modules)
            vars(run_superexec)["get_executor"] = lambda *given, **named: forking
        except OSError as fault:  # a temporary folder that is not writable, or whose name is too long
            logging.getLogger("flwr").warning("every message starts a new Python: %s", fault)
    flower_superexec()


if __name__ == "__main__":
    main()
