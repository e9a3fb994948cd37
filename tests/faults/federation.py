"""A federation as hospitals run it: `flower-server` and one `hymate-client` each, every process findable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.server.deployed import OWNER, Deployed

NODE = "HYMATE_TEST_NODE"
"""Environment of every process of one participant (a site's name, or 'server') of a federation."""
SERVER = "server"
STUDY = {
    "pretrain": {"rounds": 1, "batch_size": 16},
    "finetune": {"rounds": 2, "batch_size": 16, "patience": 9},
    "participation": {"pause_minutes": 0.1},
}
WEIGHTS = ("model/weights.safetensors", "vocabulary.json")
"""What must come out equal bit for bit."""
LIMIT_S = 600.0
"""Within this long every wait of a test ends, or the test fails."""


@dataclass
class Federation(Deployed):
    """`Deployed`, its sites run by `hymate-client`, over data that all tests share."""

    data: Path = Path()
    out: Path | None = None

    def __post_init__(self) -> None:
        self.study = {**STUDY, **self.study}
        super().__post_init__()
        for name in self.sites:
            self.write_site(name)

    @property
    def run(self) -> Path:
        return self.out or self.folder / "run"

    def write_site(self, name: str, **changes: Any) -> None:
        """The site's file; `changes` replace whole keys."""
        content = {
            "name": name,
            "data": str(self.data / name),
            "key": f"../../keys/{name}.key",
            "coordinator": {"address": f"localhost:{self.port}", "ca": "../../tls/ca.crt"},
            "health_address": None,
            "policy": {"min_cell": 1},
            **changes,
        }
        self.home(name).mkdir(parents=True, exist_ok=True)
        (self.home(name) / "site.yaml").write_text(yaml.safe_dump(content))

    def home(self, name: str) -> Path:
        return self.folder / "sites" / name

    def start_client(self, name: str, *words: str) -> subprocess.Popen[str]:
        """`hymate-client` of the site; what it tells people goes to NAME.txt."""
        command = [
            sys.executable,
            "-m",
            "client.cli",
            "--config",
            str(self.home(name) / "site.yaml"),
            *words,
        ]
        with (self.folder / f"{name}.txt").open("a") as told:
            return self._start(command, {NODE: name}, stdout=told, stderr=subprocess.STDOUT)

    def start_clients(self) -> None:
        for name in self.sites:
            self.start_client(name)

    def start_server(self, *words: str) -> subprocess.Popen[str]:
        """`flower-server`; what it tells people goes to server.txt."""
        with (self.folder / "server.txt").open("a") as told:
            return self._start(self.command(*words), {NODE: SERVER}, stdout=told, stderr=subprocess.STDOUT)

    def finish(self, server: subprocess.Popen[str]) -> int:
        """Wait for the server's end, and bring what it said before the eyes of `told`."""
        return server.wait(LIMIT_S)

    def told(self, name: str = SERVER) -> str:
        """What one participant told its people so far. No traceback is ever among it."""
        path = self.folder / f"{name}.txt"
        words = path.read_text() if path.is_file() else ""
        assert "Traceback" not in words, words
        return words

    def last_line(self, name: str = SERVER) -> str:
        lines = [line for line in self.told(name).splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def lines(self, name: str = "participation.jsonl") -> list[dict[str, Any]]:
        """The whole lines of one of the run's journals."""
        path = self.run / name
        whole = path.read_text().rpartition("\n")[0] if path.is_file() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def asked(self, phase: str, number: int = 0) -> bool:
        """Whether the sites were asked in this round."""
        key = {"phase": phase, "round": number, "outcome": "asked"}
        return any(key.items() <= line.items() for line in self.lines())

    def story(self, phase: str, number: int, name: str) -> list[str]:
        """Outcomes of one site in one round, in order."""
        key = {"phase": phase, "round": number, "site": name}
        return [str(line["outcome"]) for line in self.lines() if key.items() <= line.items()]

    def outcome(self, phase: str, number: int, name: str) -> str:
        """The latest outcome of one site in one round; empty where there is none yet."""
        return (self.story(phase, number, name) or [""])[-1]

    def journal(self, name: str) -> list[dict[str, Any]]:
        path = self.home(name) / "state" / "journal.jsonl"
        whole = path.read_text().rpartition("\n")[0] if path.is_file() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def works_on(self, name: str, words: str) -> bool:
        """Whether the site has begun on a request whose description holds the words, and not answered."""
        told = [line for line in self.journal(name) if words in str(line["text"])]
        return bool(told) and told[-1]["event"] == "asked"

    def status(self) -> dict[str, str]:
        return dict(json.loads((self.run / "status.json").read_text()))

    def weights(self) -> dict[str, bytes]:
        return {name: (self.run / name).read_bytes() for name in WEIGHTS}

    def processes(self, node: str, *words: str) -> list[psutil.Process]:
        """Every live process of one participant whose command line holds one of the words."""
        return [
            process
            for process in processes(self.folder, node)
            if not words or any(word in part for part in _words(process) for word in words)
        ]

    def kill(self, node: str, *words: str) -> int:
        """SIGKILL to every process of a participant, or to those with such words; how many there were."""
        found = self.processes(node, *words)
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=10)
        return len(found)

    def kill_worker(self, name: str) -> None:
        """SIGKILL to the process in which the site works on a message: the youngest of its processes."""
        max(self.processes(name), key=lambda process: process.create_time()).kill()

    def end(self) -> None:
        for process in processes(self.folder):
            try:
                process.send_signal(signal.SIGCONT)
            except psutil.NoSuchProcess:
                continue
        super().end()


def processes(folder: Path, node: str = "") -> Iterator[psutil.Process]:
    """The live processes of the federation in `folder`, or of one participant of it."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if (
                process.pid != os.getpid()
                and environment.get(OWNER) == str(folder)
                and (not node or environment.get(NODE) == node)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                yield process
        except psutil.Error:
            continue


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()[:4]
    except psutil.Error:
        return []


def until(
    condition: Callable[[], bool],
    what: str,
    limit: float = LIMIT_S,
    alive: subprocess.Popen[str] | None = None,
) -> float:
    """Wait for it; returns the seconds it took. `alive`: a process that must not end meanwhile."""
    began = time.monotonic()
    while not condition():
        assert alive is None or alive.poll() is None, f"ended while waiting: {what}"
        assert time.monotonic() - began < limit, f"not within {limit:.0f} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began
