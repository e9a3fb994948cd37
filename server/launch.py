"""A private SuperLink for one study: start it, submit the study's bundle, see how it fares, stop it.

Submission goes through Flower's own `flwr run`. Everything Flower and Ray write lies in one temporary
folder that is removed at the end, and every process started here carries a mark by which it is found
again, so that nothing outlives the study.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import psutil

from server.rounds import StudyFailure

MARK = "HYMATE_LAUNCH"
CONNECTION = "study"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0


class SuperLink:
    """A running SuperLink in simulation mode that serves one study on loopback."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path, log: Path, mark: str) -> None:
        self._process = process
        self._home = home
        self._mark = mark
        self._run_id = ""
        self.log = log

    def submit(self, run_config: Mapping[str, str | int], federation: Mapping[str, str | int]) -> None:
        """Submit the app bundle; raises `StudyFailure` with Flower's own words where it is refused."""
        with as_file(files("deploy") / "app") as bundle:
            answer = self._flwr(
                "run",
                str(bundle),
                CONNECTION,
                "--run-config",
                _toml(run_config),
                "--federation-config",
                _toml(federation),
                "--format",
                "json",
            )
        if not answer.get("success"):
            raise StudyFailure(f"Flower did not take the study: {answer.get('error-message', answer)}")
        self._run_id = str(answer["run-id"])

    def alive(self) -> bool:
        """Whether SuperLink itself still runs."""
        return self._process.poll() is None

    def working(self) -> bool:
        """Whether the process that carries the study (Flower's `flwr-simulation`) is running."""
        for process in _marked(self._mark):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if any("flwr-simulation" in word for word in words[:2]):
                    return process.status() != psutil.STATUS_ZOMBIE
        return False

    def verdict(self) -> tuple[str, str]:
        """The run's status and details as Flower tells them."""
        answer = self._flwr("ls", CONNECTION, "--run-id", self._run_id, "--format", "json")
        runs = answer.get("runs") or [{}]
        return str(runs[0].get("status", "unknown")), str(runs[0].get("status-details", ""))

    def _flwr(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [_tool("flwr"), *words],
            env=_environment(self._home, self._mark),
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            answer = json.loads(done.stdout)
        except json.JSONDecodeError:
            words_said = (done.stderr or done.stdout).strip().splitlines()
            raise StudyFailure(
                f"flwr {words[0]} failed: {words_said[-1] if words_said else 'no output'}"
            ) from None
        return dict(answer)


@contextlib.contextmanager
def superlink(log: Path) -> Iterator[SuperLink]:
    """A SuperLink for the length of a `with` block; on leaving, everything it started is gone."""
    home = Path(tempfile.mkdtemp(prefix="hymate-"))  # short: Ray puts sockets below it
    mark = secrets.token_hex(8)
    port = _free_port()
    (home / "ray").mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "server.guard",
                _tool("flower-superlink"),
                "--insecure",
                "--simulation",
                "--isolation",
                "subprocess",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--disable-runtime-dependency-installation",
            ],
            env=_environment(home, mark),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
        )
    try:
        _wait_until_healthy(process, port, log)
        yield SuperLink(process, home, log, mark)
    finally:
        _stop(process, mark)
        shutil.rmtree(home, ignore_errors=True)


def _environment(home: Path, mark: str) -> dict[str, str]:
    """Flower and Ray keep to their folder and call nobody."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_TMPDIR": str(home / "ray"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PYTHONWARNINGS": "ignore::FutureWarning",
        MARK: mark,
    }


def _tool(name: str) -> str:
    """The command that belongs to this Python, not whichever comes first on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise StudyFailure(f"'{name}' is not installed: pip install 'flwr[simulation]'")
    return found


def _toml(values: Mapping[str, str | int]) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StudyFailure(f"SuperLink ended with code {process.returncode}: {last_line(log)}")
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
            return
        time.sleep(0.1)
    raise StudyFailure(f"SuperLink did not answer within {START_TIMEOUT_S:.0f} s; see {log}")


def last_line(log: Path) -> str:
    """The last line of a log that says something, for a one-line cause."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "its log is empty"


def _marked(mark: str) -> list[psutil.Process]:
    """Every process that inherited this launch's mark, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _stop(process: subprocess.Popen[bytes], mark: str) -> None:
    """Ask SuperLink to end, then end whatever of it and of Ray is left."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        left = _marked(mark)
        for straggler in left:
            with contextlib.suppress(psutil.Error):
                ask(straggler)
        psutil.wait_procs(left, timeout=5)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
