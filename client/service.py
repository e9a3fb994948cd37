"""The hospital's running process: keeps a SuperNode alive, says what it does, leaves nothing behind.

The SuperNode is a child process (`client.supernode`). Flower ends it where the coordinator is begun
anew, a certificate fails or a key is not known; this process then starts the next one, for ever, with
growing pauses. It imports neither flwr nor torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from client.journal import Event, Tail, journal_path, note
from client.keygen import fingerprint_of, public_key_of
from client.site import FLOWER, SiteConfig, connection_of, host_of, port_of
from hymate.errors import InputFault
from hymate.processes import MARK, end_marked, last_line, temporary_home

LOCK = "client.lock"
LOG = "supernode.log"
LOG_BYTES = 20 << 20
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 15.0)
POLL_S = 0.2
STOP_S = 10.0
LEAVES_S = 10.0
REMIND_S = 300.0
EXIT_FAULT = 2
"""What the SuperNode ends with where the site's files cannot be used."""

Say = Callable[[str], None]


class NotConnected(Exception):
    """The coordinator could not be joined in the time given; the message is the last cause."""


def serve(path: Path, site: SiteConfig, say: Say, give_up_after_s: float | None = None) -> None:
    """Run the site of the file at `path` until SIGTERM or SIGINT, then return; nothing is left running.

    Args:
        say: told each line for people.
        give_up_after_s: without a connection for so long, end; None: go on for ever.

    Raises:
        InputFault: key, certificate or folders of the site cannot be used, or the site runs already.
        NotConnected: `give_up_after_s` is over.
    """
    coordinator, key = connection_of(site, path)
    fingerprint = fingerprint_of(public_key_of(key))
    demand_readable(coordinator.ca)
    with _stop_signals() as stopping, only_one(site), temporary_home() as home:
        demand_free(site, path)
        say(f"site {site.name}, key {fingerprint}, coordinator {coordinator.address}")
        note(site, Event.STARTED, f"client of site {site.name} started")
        service = _Service(path, site, home, say)
        try:
            service.keep_running(stopping, give_up_after_s)
        finally:
            service.stop()
            note(site, Event.STOPPED, f"client of site {site.name} stopped")
        say("stopped")


class _Service:
    """One SuperNode after the other, and what is told of them."""

    def __init__(self, path: Path, site: SiteConfig, home: Path, say: Say) -> None:
        """Args: home: of the temporary files of all that is started."""
        self._path = path
        self._site = site
        self._home = home
        self._say = say
        self._mark = secrets.token_hex(8)
        self._tail = Tail(journal_path(site))
        self._child: subprocess.Popen[bytes] | None = None
        self._cause = "it has not answered yet"
        self._told: dict[str, float] = {}
        self._lost = time.monotonic()
        """Since when there is no connection; inf while there is one."""
        self._failures = 0
        self._heard = False
        """Whether the SuperNode that runs has said anything."""

    def keep_running(self, stopping: Callable[[], bool], give_up_after_s: float | None) -> None:
        resume_at = 0.0
        while not stopping():
            if self._child is None and time.monotonic() >= resume_at:
                self._child = self._start()
            self._tell()
            if self._child is not None and self._child.poll() is not None:
                self._tell()
                code, self._child = self._child.returncode, None
                end_marked(self._mark)
                if code == EXIT_FAULT:
                    raise InputFault(self._path, last_line(self._log), "correct what it names")
                if not self._heard:  # not a word of why: then its log's last one
                    cause = f"its SuperNode ended: {last_line(self._log)}; starting it again ({self._log})"
                    note(self._site, Event.WAITING, cause)
                self._lost = min(self._lost, time.monotonic())
                pause = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
                self._failures += 1
                resume_at = time.monotonic() + pause
            if give_up_after_s is not None and time.monotonic() - self._lost > give_up_after_s:
                raise NotConnected(self._cause)
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End the SuperNode and whatever it started."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOP_S)
        end_marked(self._mark)
        if self._child is not None:
            self._child.wait()
        self._tell()

    @property
    def _log(self) -> Path:
        return self._site.state / LOG

    def _start(self) -> subprocess.Popen[bytes]:
        (self._site.state / FLOWER).mkdir(parents=True, exist_ok=True)
        if self._log.is_file() and self._log.stat().st_size > LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        self._heard = False
        words = ["-m", "client.supernode", str(self._path), str(_free_port()), str(os.getpid())]
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *words],
                env=environment(self._site, self._home, self._mark),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )

    def _tell(self) -> None:
        for line in self._tail.fresh():
            event, text = str(line.get("event")), str(line.get("text"))
            self._heard = True
            if event == Event.CONNECTED:
                self._lost, self._failures = float("inf"), 0
                self._told.clear()
            elif event == Event.WAITING:
                self._lost, self._cause = min(self._lost, time.monotonic()), text
                if time.monotonic() - self._told.get(text, -REMIND_S) < REMIND_S:
                    continue
                self._told[text] = time.monotonic()
            elif event in (Event.STARTED, Event.STOPPED):
                continue
            self._say(text)


def environment(site: SiteConfig, home: Path, mark: str) -> dict[str, str]:
    """What the SuperNode and its children inherit: they call nobody but the coordinator."""
    own = f"127.0.0.1,localhost,{os.environ.get('NO_PROXY') or os.environ.get('no_proxy') or ''}".rstrip(",")
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "TMPDIR": str(home),
        "FLWR_HOME": str(site.state / FLOWER),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
        "NO_PROXY": own,
        "no_proxy": own,
        "PYTHONWARNINGS": "ignore::FutureWarning",
        "PYTHONUNBUFFERED": "1",
        MARK: mark,
    }


@contextlib.contextmanager
def only_one(site: SiteConfig) -> Iterator[None]:
    """Hold the site's lock: two clients with one key would take each other's messages."""
    file = _locked(site)
    if file is None:
        raise InputFault(
            f"site {site.name}", "is run by another hymate-client already", "stop that one first"
        )
    with file:
        yield


def runs_already(site: SiteConfig) -> bool:
    """Whether a client of this site is running on this machine."""
    if not (site.state / LOCK).is_file():
        return False
    file = _locked(site)
    if file is None:
        return True
    file.close()
    return False


def demand_readable(path: Path) -> bytes:
    """The content of a file the site file names; `InputFault` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as fault:
        raise InputFault(path, f"cannot be read ({fault.strerror})", "correct the path") from None


def demand_free(site: SiteConfig, path: Path) -> None:
    """`InputFault` where the site's health port is taken; what a killed client left may take a moment."""
    if site.health_address is None:
        return
    host, port = host_of(site.health_address), port_of(site.health_address)
    until = time.monotonic() + LEAVES_S
    while True:
        try:
            family, kind, proto, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, proto) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                return
        except OSError as fault:
            if time.monotonic() > until:
                raise InputFault(
                    path,
                    f"health_address {site.health_address}: cannot listen there: {fault.strerror or fault}",
                    "end what uses the port, or choose another one, or null",
                ) from None
        time.sleep(POLL_S)


def _locked(site: SiteConfig) -> IO[str] | None:
    try:
        site.state.mkdir(parents=True, exist_ok=True)
        file = (site.state / LOCK).open("a")
    except OSError as fault:
        raise InputFault(
            site.state, f"cannot be written to ({fault.strerror})", "correct `state`, or its permissions"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT ask for an end instead of making one."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
