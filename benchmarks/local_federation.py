"""Coordinator and sites of a benchmark as processes of this machine, over TLS and through a relay."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ports import free_ports
from benchmarks.relay import Relay
from client.keygen import make_key
from hymate.data.synthetic import generate_cohort, write_cohort
from server.certificates import make_certificates
from server.federation_config import FederationConfig
from server.study import load_study

PATIENCE_S = 600.0
"""Limit after which a benchmark gives up; far above what a machine of its own needs."""
BIN = Path(sys.executable).parent


class Bench:
    """A folder with certificates, keys, data and files for one federation after the other."""

    def __init__(self, folder: Path, sites: int, stays: int, rounds: int, model: dict[str, Any]) -> None:
        self.folder = folder
        self.rounds = rounds
        self.link_port, self.relay_port, self.health_port = free_ports(3)
        make_certificates(folder / "tls", ["localhost"])
        write_cohort(generate_cohort(sites, stays, seed=0), folder / "data")
        self.sites = sorted(path.parent.parent.name for path in folder.glob("data/*/metadata/dataset.json"))
        for name in self.sites:
            make_key(folder / "keys", name)
        (folder / "study.yaml").write_text(yaml.safe_dump(self._study(model)), encoding="utf-8")

    def _study(self, model: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": "overhead",
            "model": model,
            "pretrain": {"rounds": 0},
            "finetune": {"rounds": self.rounds, "patience": self.rounds},
            "federation": {
                "address": f"127.0.0.1:{self.link_port}",
                "public_address": "localhost:9092",
                "health_address": f"127.0.0.1:{self.health_port}",
                "tls": {"certificate": "tls/server.crt", "key": "tls/server.key", "ca": "tls/ca.crt"},
                "sites": {name: {"public_key": f"keys/{name}.pub"} for name in self.sites},
                "wait_minutes": PATIENCE_S / 60,
            },
        }

    @property
    def federation(self) -> FederationConfig:
        found = load_study(self.folder / "study.yaml").federation
        assert found is not None
        return found

    def relay(self) -> Relay:
        return Relay(self.relay_port, self.link_port)

    @contextlib.contextmanager
    def clients(self, label: str, approved: str | None) -> Iterator[None]:
        """A `hymate-client` for every site, all of which run the bundle approved."""
        commands = []
        for name in self.sites:
            file = self.folder / label / name / "site.yaml"
            file.parent.mkdir(parents=True)
            site = {
                "name": name,
                "data": str(self.folder / "data" / name),
                "coordinator": {
                    "address": f"localhost:{self.relay_port}",
                    "ca": str(self.folder / "tls" / "ca.crt"),
                },
                "key": str(self.folder / "keys" / f"{name}.key"),
                "health_address": None,
                "policy": {"min_cell": 1, "approved_app": approved},
            }
            file.write_text(yaml.safe_dump(site), encoding="utf-8")
            commands.append([sys.executable, "-m", "client.cli", "--config", str(file)])
        with self._processes(label, commands):
            yield

    @contextlib.contextmanager
    def stock_nodes(self, label: str) -> Iterator[None]:
        """Flower's own SuperNode for every site, with its own settings."""
        commands = [
            [
                str(BIN / "flower-supernode"),
                *("--superlink", f"localhost:{self.relay_port}"),
                *("--root-certificates", str(self.folder / "tls" / "ca.crt")),
                *("--auth-supernode-private-key", str(self.folder / "keys" / f"{name}.key")),
                *("--isolation", "subprocess", "--host", "127.0.0.1", "--port", str(free_ports(1)[0])),
            ]
            for name in self.sites
        ]
        with self._processes(label, commands):
            yield

    @contextlib.contextmanager
    def _processes(self, label: str, commands: Sequence[Sequence[str]]) -> Iterator[None]:
        (self.folder / label).mkdir(exist_ok=True)
        running = []
        try:
            for number, command in enumerate(commands):
                environment = {
                    **os.environ,
                    "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
                    "FLWR_HOME": str(self.folder / label / f"flower-{number}"),
                    "FLWR_TELEMETRY_ENABLED": "0",
                    "FLWR_DISABLE_UPDATE_CHECK": "1",
                }
                with (self.folder / label / f"{number}.log").open("wb") as log:
                    running.append(
                        subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
                    )
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()
                process.wait()
