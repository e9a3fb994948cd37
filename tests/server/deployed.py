"""A federation of real processes on loopback: one `flower-server`, a SuperNode for each hospital."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.ports import free_ports
from hymate.data.synthetic import generate_cohort, write_cohort
from hymate.processes import MARK
from server.certificates import make_certificates

BIN = Path(sys.executable).parent
OWNER = "HYMATE_TEST_FOLDER"
"""Environment of every process of one federation, so that tests side by side do not count each other's."""
TINY = {"d_model": 8, "mamba_blocks": 1, "d_state": 4, "attention_heads": 2, "d_static": 4}


def write_key(folder: Path, name: str) -> None:
    """A site's key pair: `NAME.key` and `NAME.pub`."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (folder / f"{name}.pub").write_bytes(public)


@dataclass
class Deployed:
    """One federation in a folder: certificates, keys, site files, a study file, and its processes."""

    folder: Path
    sites: tuple[str, ...] = ("hospital_1", "hospital_2")
    study: dict[str, Any] = field(default_factory=dict)
    federation: dict[str, Any] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        make_certificates(self.folder / "tls", ["localhost"])
        for name in self.sites:
            write_key(self.folder / "keys", name)
        self.port, self.health = free_ports(2)
        self.write_study()

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def write_study(self) -> None:
        """The study file, small enough to be over in seconds."""
        content = {
            "name": "tiny",
            "model": TINY,
            "pretrain": {"rounds": 1, "batch_size": 16},
            "finetune": {"rounds": 2, "batch_size": 16},
            **self.study,
            "federation": {
                "address": f"127.0.0.1:{self.port}",
                "public_address": f"localhost:{self.port}",
                "health_address": f"127.0.0.1:{self.health}",
                "tls": {"certificate": "tls/server.crt", "key": "tls/server.key", "ca": "tls/ca.crt"},
                "sites": {name: {"public_key": f"keys/{name}.pub"} for name in self.sites},
                "wait_minutes": 5,
                **self.federation,
            },
        }
        (self.folder / "study.yaml").write_text(yaml.safe_dump(content))

    def write_data(self) -> None:
        """A synthetic MEDS data set and a site file for every hospital."""
        write_cohort(generate_cohort(len(self.sites), 60, seed=0), self.folder / "data")
        for name in self.sites:
            home = self.folder / "sites" / name
            home.mkdir(parents=True)
            site = {"name": name, "data": f"../../data/{name}", "policy": {"min_cell": 1}}
            (home / "site.yaml").write_text(yaml.safe_dump(site))

    def start_site(self, name: str, *, key: str = "", ca: str = "tls/ca.crt") -> subprocess.Popen[str]:
        """Flower's own SuperNode with the site's key and file; its output goes to NAME.log."""
        (port,) = free_ports(1)
        home = self.folder / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        command = [
            str(BIN / "flower-supernode"),
            *("--superlink", f"localhost:{self.port}"),
            *("--root-certificates", str(self.folder / ca)),
            *("--auth-supernode-private-key", str(self.folder / "keys" / f"{key or name}.key")),
            *("--node-config", f'site="{self.folder / "sites" / name / "site.yaml"}"'),
            *("--isolation", "subprocess", "--host", "127.0.0.1", "--port", str(port)),
        ]
        with (self.folder / f"{name}.log").open("a") as log:
            return self._start(command, {"FLWR_HOME": str(home)}, stdout=log, stderr=subprocess.STDOUT)

    def start_server(self, *words: str, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        """`flower-server` on the study file, its words on pipes."""
        return self._start(self.command(*words), {}, stdout=stdout, stderr=subprocess.PIPE)

    def serve(self, *words: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """`flower-server` until it ends."""
        process = self.start_server(*words)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def command(self, *words: str) -> list[str]:
        files = ["--config", str(self.folder / "study.yaml"), "--out", str(self.run)]
        return [sys.executable, "-m", "server.server_cli", *files, *words]

    def wait_for(self, path: Path, words: str = "", *, of: subprocess.Popen[str], limit: float = 300) -> None:
        """Until a file of the run is there and holds the words."""
        deadline = time.monotonic() + limit
        while not (path.is_file() and words in path.read_text()):
            assert of.poll() is None, of.communicate()
            assert time.monotonic() < deadline, f"{path.name} without '{words}'"
            time.sleep(0.2)

    def _start(self, command: Sequence[str], more: dict[str, str], **streams: Any) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "OMP_NUM_THREADS": "1",
            OWNER: str(self.folder),
            **more,
        }
        process = subprocess.Popen(command, env=environment, text=True, cwd=self.folder, **streams)
        self.started.append(process)
        return process

    def end(self) -> None:
        """End what the test started and did not end itself."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def started_by_servers(folder: Path) -> dict[int, list[str]]:
    """What the `flower-server`s of the federation in `folder` started: each process carries their mark."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if MARK in environment and environment.get(OWNER) == str(folder):
                found[process.pid] = process.cmdline()[:4]
        except psutil.Error:
            continue
    return found
