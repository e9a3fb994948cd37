"""A SuperLink for one study: start it, submit the study's bundle, see how it fares, stop it.

It is open to real sites with TLS, node keys and a database. Every process started here carries a mark by
which it is found again, so that nothing outlives the study; what Flower writes for itself lies in one
temporary folder that is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from hymate.processes import MARK, end_marked, last_line, marked, temporary_home
from server.control import Control, study_bundle
from server.failure import StudyFailure
from server.federation_config import FederationConfig, split_address

CARRIER = "flwr-serverapp"
"""Flower's program in which a study's ServerApp runs."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
POLL_TASKS_S = "0.5"
"""How often Flower's executor looks for a study to start; each look costs SuperLink milliseconds, in
every round of the study that it has started."""


class SuperLink:
    """A SuperLink that runs, and the one study submitted to it."""

    def __init__(
        self, control: Control, process: subprocess.Popen[bytes] | None, log: Path | None, mark: str
    ) -> None:
        self.control = control
        self._process = process
        self._mark = mark
        self._run_id = 0
        self.log = log

    def submit(self, run_config: Mapping[str, str | int]) -> None:
        """Submit the app bundle; raises `StudyFailure` with Flower's own words where it is refused."""
        self._run_id = self.control.start(study_bundle(), run_config)

    def alive(self) -> bool:
        """Whether SuperLink itself still runs, as far as this machine can tell."""
        return self._process is None or self._process.poll() is None

    def working(self) -> bool:
        """Whether the process that carries the study is running on this machine."""
        for process in marked(self._mark):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if any(word.endswith(CARRIER) for word in words[:2]):
                    return process.status() != psutil.STATUS_ZOMBIE
        return False

    def verdict(self) -> tuple[str, str]:
        """The run's status and details as Flower tells them."""
        return self.control.verdict(self._run_id)

    def stop_study(self) -> None:
        """Tell Flower that the study is over, so that sites stop working for it."""
        if self._run_id:
            self.control.stop(self._run_id)

    def last_words(self) -> str:
        """The signal that killed SuperLink, or the last line of its log, for a one-line cause."""
        if self._process is not None and (self._process.returncode or 0) < 0:
            return f"killed by {signal.Signals(-self._process.returncode).name}"
        return last_line(self.log) if self.log else "its log is where it was started"


@contextlib.contextmanager
def deployed_superlink(federation: FederationConfig, folder: Path) -> Iterator[SuperLink]:
    """A SuperLink that real sites reach, for the length of a `with` block.

    TLS, node keys, gRPC health; `folder` keeps its database and log, so that a resumed study finds
    its sites under the same node ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tls = federation.tls
    words = [
        "--ssl-certfile",
        str(tls.certificate),
        "--ssl-keyfile",
        str(tls.key),
        "--ssl-ca-certfile",
        str(tls.ca),
        "--enable-supernode-auth",
        "--database",
        str(folder.resolve() / "state.db"),
        "--health-server-address",
        federation.health_address,
        *_listening(*split_address(federation.address)),
    ]
    program = [sys.executable, "-m", "server.gate"]
    control = Control(federation.local_address(), tls.ca)
    with _running(program + words, folder / "superlink.log", control, tls.ca) as link:
        yield link


@contextlib.contextmanager
def named_superlink(federation: FederationConfig) -> Iterator[SuperLink]:
    """The SuperLink that `federation.superlink` names; it stays up when the `with` block is left."""
    with Control(federation.local_address(), federation.tls.ca) as control:
        yield SuperLink(control, None, None, "")


@contextlib.contextmanager
def _running(command: Sequence[str], log: Path, control: Control, ca: Path | None) -> Iterator[SuperLink]:
    """SuperLink as a child process; on leaving, everything it started is gone."""
    mark = secrets.token_hex(8)
    with temporary_home() as home:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "server.guard", *command],
                env=_environment(home, mark),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )
        try:
            _wait_until_healthy(process, control.address, ca, log)
            with control:
                yield SuperLink(control, process, log, mark)
        finally:
            _stop(process, mark)


def _listening(host: str, port: int) -> list[str]:
    return [
        "--isolation",
        "subprocess",
        "--host",
        host,
        "--port",
        str(port),
        "--disable-runtime-dependency-installation",
    ]


def _environment(home: Path, mark: str) -> dict[str, str]:
    """Flower keeps to its folder and calls nobody."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": os.environ.get(
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL", POLL_TASKS_S
        ),
        "PYTHONWARNINGS": "ignore::FutureWarning",
        MARK: mark,
    }


def _wait_until_healthy(process: subprocess.Popen[bytes], address: str, ca: Path | None, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    trust = ssl.create_default_context(cafile=ca) if ca else None
    scheme = "https" if ca else "http"
    trouble = "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StudyFailure(f"SuperLink ended with code {process.returncode}: {last_line(log)}")
        try:
            urllib.request.urlopen(f"{scheme}://{address}/health", timeout=1, context=trust).close()
        except urllib.error.URLError as fault:
            if isinstance(fault.reason, ssl.SSLCertVerificationError):
                raise StudyFailure(
                    f"SuperLink at {address} shows a certificate that cannot be verified: "
                    f"{fault.reason.verify_message}"
                ) from None
            trouble = str(fault.reason)
        except OSError as fault:
            trouble = str(fault)
        else:
            return
        time.sleep(0.1)
    raise StudyFailure(f"SuperLink did not answer within {START_TIMEOUT_S:.0f} s ({trouble}); see {log}")


def _stop(process: subprocess.Popen[bytes], mark: str) -> None:
    """Ask SuperLink to end, then end whatever of it is left."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    end_marked(mark)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
