"""A whole study on real stays between processes that share nothing but a wire, and what went over it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.ports import free_ports
from client.keygen import make_key
from hymate.data.physionet2012 import prepare_physionet2012
from server.certificates import make_certificates
from tests.deploy.namespaces import ADDRESS, COORDINATOR, NOBODY, Network, NoNamespaces, network
from tests.deploy.raw_stays import HOSPITALS, write_few
from tests.server.deployed import BIN, TINY

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1200)]

SITES = tuple(HOSPITALS.values())
PORT, HEALTH = 9092, 9091
LIMIT_S = 900
"""A study of half a minute on two free cores; a busy machine may take its time."""


def required() -> bool:
    return os.environ.get("HYMATE_REQUIRE_NAMESPACES") == "1"


@dataclass
class Loopback:
    """Where there are no namespaces: everyone on one machine, nobody's packets seen."""

    folder: Path
    host = "localhost"

    def inside(self, _: str, command: Sequence[str], folder: Path | None = None) -> list[str]:
        return ["env", "-C", str(folder or self.folder), *command]


@contextlib.contextmanager
def wires(folder: Path) -> Iterator[Network | Loopback]:
    """Namespaces; or loopback, and a warning that says why and what was not tested then."""
    with contextlib.ExitStack() as stack:
        place: Network | Loopback
        try:
            place = stack.enter_context(network(*SITES))
        except NoNamespaces as fault:
            if required():
                pytest.fail(f"network namespaces are required, but: {fault}")
            warnings.warn(
                f"on loopback, as there are no network namespaces ({fault}): the study is carried to its "
                "report, but whom the processes call is not seen",
                stacklevel=2,
            )
            place = Loopback(folder)
        yield place


@dataclass
class Federation:
    """Files of a coordinator and its hospitals as people make them, and the processes they start."""

    folder: Path
    place: Network | Loopback
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port, self.health = (PORT, HEALTH) if isinstance(self.place, Network) else free_ports(2)

    def write(self, data: Path) -> None:
        make_certificates(self.folder / "study" / "tls", [self.place.host])
        (self.folder / "study" / "keys").mkdir()
        for name in SITES:
            made = make_key(self.folder / name, name)
            made.public.rename(self.folder / "study" / "keys" / made.public.name)
            site = {
                "name": name,
                "data": str(data / name),
                "key": made.private.name,
                "coordinator": {
                    "address": f"{self.place.host}:{self.port}",
                    "ca": "../study/tls/ca.crt",
                },
                "health_address": f"127.0.0.1:{free_ports(1)[0]}",
                "policy": {"min_cell": 5, "tasks": ["in_hospital_mortality"], "max_rounds_per_study": 5},
            }
            (self.folder / name / "site.yaml").write_text(yaml.safe_dump(site))
        study = {
            "name": "wired",
            "model": TINY,
            "pretrain": {"rounds": 1, "batch_size": 32},
            "finetune": {"rounds": 1, "batch_size": 32},
            "federation": {
                "address": f"0.0.0.0:{self.port}",
                "public_address": f"{self.place.host}:{self.port}",
                "health_address": f"127.0.0.1:{self.health}",
                "tls": {"certificate": "tls/server.crt", "key": "tls/server.key", "ca": "tls/ca.crt"},
                "sites": {name: {"public_key": f"keys/{name}.pub", "required": True} for name in SITES},
                "wait_minutes": 5,
            },
        }
        (self.folder / "study" / "study.yaml").write_text(yaml.safe_dump(study))

    def start(self, who: str, *command: str, **more: str) -> subprocess.Popen[str]:
        """A process of one of them; it knows no setting of Flower's or of a proxy but what is given."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FLWR_", "HYMATE_", "PYTEST_")) and "proxy" not in name.lower()
        }
        environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **more}
        with (self.folder / f"{who}.log").open("a") as log:
            process = subprocess.Popen(
                self.place.inside(who, command, self.folder),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        return process

    def told(self, who: str) -> str:
        return (self.folder / f"{who}.log").read_text()

    def end(self) -> list[int]:
        """End whatever still runs; the exit codes in the order of the starts."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
        codes = []
        for process in self.started:
            try:
                codes.append(process.wait(60))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        self.started.clear()
        return codes


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """Everyone in a place of their own; whatever they started is ended."""
    with wires(tmp_path) as place:
        made = Federation(tmp_path, place)
        try:
            yield made
        finally:
            made.end()


@pytest.fixture(scope="module")
def stays(physionet2012_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ICU types as three hospitals: 100 real stays each."""
    folder = tmp_path_factory.mktemp("stays")
    write_few(physionet2012_raw, folder / "raw", died=40, survived=60)
    prepare_physionet2012(folder / "raw", folder / "sites", site_by="icu_type")
    return folder / "sites"


def calls(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What somebody began, or sent unasked: all that leaves but answers over TCP and the search for a
    neighbour's hardware address."""
    (missed,) = [entry["missed"] for entry in seen if "missed" in entry]
    assert missed == 0, "packets went by unseen"
    packets = [entry for entry in seen if "missed" not in entry]
    assert packets, "nothing was recorded"
    return [
        {key: value for key, value in entry.items() if key not in ("leaves", "opens")}
        for entry in packets
        if entry["leaves"] and entry["protocol"] != "arp" and entry.get("opens") is not False
    ]


def test_a_study_on_real_stays_and_no_call_but_to_the_coordinator(
    stays: Path, federation: Federation
) -> None:
    federation.write(stays)
    for name in SITES:
        federation.start(name, sys.executable, "-m", "client.cli", "--config", f"{name}/site.yaml")
    words = ["-m", "server.server_cli", "--config", "study/study.yaml", "--out", "run"]
    server = federation.start(COORDINATOR, sys.executable, *words)
    assert server.wait(LIMIT_S) == 0, federation.told(COORDINATOR)
    assert federation.end() == [0, 0, 0, 0]

    run = federation.folder / "run"
    report = json.loads((run / "report.json").read_text())
    assert sorted(report["sites"]) == sorted(SITES)
    story = [json.loads(line) for line in (run / "participation.jsonl").read_text().splitlines()]
    assert {line["outcome"] for line in story} == {"asked", "replied"}
    for who in (*SITES, COORDINATOR):
        assert "Traceback" not in federation.told(who)
    if isinstance(federation.place, Network):
        seen = federation.place.close()
        for name in SITES:
            assert calls(seen[name]) == [{"protocol": "tcp", "target": ADDRESS, "port": PORT}], name
        assert calls(seen[COORDINATOR]) == []


def test_what_calls_elsewhere_is_seen(federation: Federation) -> None:
    """Names, addresses of both kinds and another hospital: nothing answers, and all of it is on record."""
    place = namespaces_of(federation)
    north, south, _ = SITES
    call = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
    serve = "import socket, time; s = socket.create_server(('', 9094)); time.sleep(60)"
    federation.start(south, sys.executable, "-c", serve)
    other = place.hospital_address(south)
    for host, port in [("name.test", 443), ("198.51.100.7", 80), ("2001:db8::7", 443), (other, 9094)]:
        assert federation.start(north, sys.executable, "-c", call, host, str(port)).wait(30) == 1
    federation.end()
    assert calls(place.close()[north]) == [
        {"protocol": "udp", "target": NOBODY, "port": 53, "asks": "name.test"},
        {"protocol": "tcp", "target": "198.51.100.7", "port": 80},
        {"protocol": "tcp", "target": "2001:db8::7", "port": 443},
        {"protocol": "tcp", "target": other, "port": 9094},
    ]


def test_flowers_telemetry_and_update_check_would_be_seen(federation: Federation) -> None:
    """The same SuperNode without the client's settings calls home: the study's test is not blind to it."""
    place = namespaces_of(federation)
    key = make_key(federation.folder, "site").private
    words = ["--superlink", f"{place.host}:{PORT}", "--insecure", "--auth-supernode-private-key", str(key)]
    home = str(federation.folder)
    federation.start(SITES[0], str(BIN / "flower-supernode"), *words, FLWR_HOME=home)
    deadline = time.monotonic() + LIMIT_S
    while not {entry.get("asks") for entry in place.record(SITES[0])} >= {
        "api.flower.ai",
        "telemetry.flower.ai",
    }:
        assert time.monotonic() < deadline, place.record(SITES[0])
        time.sleep(0.2)


def namespaces_of(federation: Federation) -> Network:
    if isinstance(federation.place, Loopback):
        pytest.skip("no network namespaces")
    return federation.place
