"""The running site against a real SuperLink on loopback: TLS, node keys, foreign code, stops and returns."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from flwr.cli.build import build_fab_from_disk
from flwr.supernode import fleet_http_connection as transport
from flwr.supernode import start_client_internal as node

from client import supernode
from client.keygen import make_key
from hymate.errors import InputFault
from hymate.processes import MARK
from tests.client.coordinator import Coordinator, environment, free_port, superlink, until, write_certificates
from tests.in_process import lay_out

pytestmark = pytest.mark.deployment

PROJECT = """
[project]
name = "foreign"
version = "1.0.0"
description = "an app of another origin"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "someone"
[tool.flwr.app.components]
serverapp = "foreign.ask:app"
clientapp = "foreign.run:app"
[tool.flwr.app.config]
out = ""
nodes = ""
action = ""
"""

ASK = """
import json
from pathlib import Path
from flwr.app import Message
from flwr.serverapp import ServerApp
from hymate.config import TaskConfig
from hymate.joining_protocol import DescribeRequest
from strategies.wire import pack

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    content = pack(DescribeRequest(task=TaskConfig()))
    asked = [
        Message(content, dst_node_id=int(node), message_type=str(config["action"]))
        for node in str(config["nodes"]).split()
    ]
    told = {}
    for reply in grid.send_and_receive(asked, timeout=80):
        said = reply.error.reason if reply.has_error() else reply.content.config_records["config"]["json"]
        told[str(reply.metadata.src_node_id)] = said
    path = Path(str(config["out"]))
    path.with_suffix(".part").write_text(json.dumps(told))
    path.with_suffix(".part").rename(path)
"""

RUN = """
import os, time
from pathlib import Path
from client.app import app as installed

app = installed
Path(os.environ["FLWR_HOME"], "ran").touch()


@app.query("linger")
def linger(message, context):
    Path(os.environ["FLWR_HOME"], "lingers").touch()
    time.sleep(600)
"""


class Site:
    """A site's folder, and `hymate-client` as it runs."""

    def __init__(self, folder: Path, coordinator: Coordinator, data: Path, **policy: Any) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.key = make_key(folder, "site")
        self.mark = f"test-{folder.name}-{os.getpid()}"
        self.file = folder / "site.yaml"
        content = {
            "name": folder.name,
            "data": str(data),
            "key": "site.key",
            "coordinator": {"address": coordinator.address, "ca": str(coordinator.folder / "ca.crt")},
            "health_address": f"127.0.0.1:{free_port()}",
            "policy": policy,
        }
        self.file.write_text(yaml.safe_dump(content))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """The test's mark lies beside the client's own, in another variable: it finds every descendant."""
        with (self.folder / "told.txt").open("ab") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "client.cli", "--config", str(self.file), *options],
                env={**environment(self.folder), "SITE_OF_TEST": self.mark},
                stdout=told,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def told(self) -> str:
        return (self.folder / "told.txt").read_text()

    def log(self) -> str:
        return (self.state / "supernode.log").read_text()

    def processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SITE_OF_TEST") == self.mark and process.status() != "zombie":
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals")
    lay_out(folder, 1, stays=40)
    return folder / "data" / "hospital_1"


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with superlink(tmp_path_factory.mktemp("coordinator")) as made:
        yield made


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[list[Site]]:
    """Sites that a test adds, ended whatever happens."""
    made: list[Site] = []
    yield made
    for site in made:
        if site.process is not None and site.process.poll() is None:
            site.process.kill()
            site.process.wait()
        until(lambda site=site: not site.processes(), "the site's processes are gone")


def foreign_app(folder: Path) -> Path:
    app = folder / "foreign-app"
    (app / "foreign").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    for name, text in (("__init__", ""), ("ask", ASK), ("run", RUN)):
        (app / "foreign" / f"{name}.py").write_text(text)
    return app


def test_foreign_code_runs_where_it_is_approved_and_nowhere_else(
    tmp_path: Path, coordinator: Coordinator, hospitals: Path, sites: list[Site]
) -> None:
    """One app, two sites: one has approved it by hash and answers; at the other nothing of it runs.

    Then the first is stopped in the middle of its work, and nothing of it is left.
    """
    app = foreign_app(tmp_path)
    approved = hashlib.sha256(build_fab_from_disk(app)).hexdigest()
    trusting = Site(tmp_path / "trusting", coordinator, hospitals, approved_app=approved)
    strict = Site(tmp_path / "strict", coordinator, hospitals)
    sites += [trusting, strict]
    nodes = {site: coordinator.register(site.key.public, site.folder.name) for site in sites}
    for site in sites:
        site.start()
    for site in sites:
        until(lambda site=site: "connected to" in site.told(), site.folder.name)
    out = tmp_path / "told.json"
    ids = " ".join(str(number) for number in nodes.values())
    coordinator.submit(app, out=str(out), nodes=ids, action="query.describe")
    until(out.is_file, "the app's ServerApp is done")
    told = json.loads(out.read_text())

    answered = json.loads(told[str(nodes[trusting])])
    assert answered["site"] == "trusting"
    assert answered["splits"]["train"]["stays"] > 0
    assert (trusting.state / ".flower" / "ran").is_file()
    assert "describe: working on it" in trusting.told()

    refused = told[str(nodes[strict])]
    assert "site strict: does not run this app: it holds more than pyproject.toml" in refused
    assert not (strict.state / ".flower" / "ran").exists()
    assert not list((strict.state / ".flower").glob("apps/*")), "it was not even unpacked"
    assert "an app the coordinator sent: it holds more than" in strict.told()

    coordinator.submit(app, out=str(tmp_path / "x"), nodes=str(nodes[trusting]), action="query.linger")
    until((trusting.state / ".flower" / "lingers").is_file, "the site works")
    assert sum("multiprocessing.forkserver" in words for words in trusting.processes()) == 2, "one works"
    assert [trusting.stop(), strict.stop(signal.SIGINT)] == [0, 0]
    assert trusting.processes() == strict.processes() == []
    assert trusting.told().splitlines()[-1].endswith("stopped")
    assert coordinator.status_of(nodes[strict]) == "offline"


def test_a_site_waits_for_its_coordinator_joins_and_joins_again(
    tmp_path: Path, hospitals: Path, sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not there, key unknown, known, gone, begun anew: the site says so each time and needs nobody.

    What it could not clean up, being killed, the next one does.
    """
    (temporary := tmp_path.parent / "t").mkdir()  # a short name: sockets lie below
    monkeypatch.setenv("TMPDIR", str(temporary))
    write_certificates(tmp_path / "c")
    at = Coordinator(tmp_path / "c", free_port(), 0)
    site = Site(tmp_path / "north", at, hospitals)
    sites.append(site)
    site.start()
    until(lambda: "not reachable" in site.told(), "the site waits")
    with superlink(at.folder, at.port) as begun:
        until(lambda: "does not know this site's key" in site.told(), "the key is not known")
        assert site.key.fingerprint in site.told()
        begun.register(site.key.public, "north")
        until(lambda: "connected to" in site.told(), "the site joins")
        told = len(site.told())
    until(lambda: "not reachable" in site.told()[told:], "the coordinator is gone")
    (at.folder / "state.db").unlink()
    with superlink(at.folder, at.port) as anew:
        anew.register(site.key.public, "north")
        until(lambda: "connected to" in site.told()[told:], "the site joins again")
        until(lambda: list(temporary.glob("hymate-*/pymp-*")), "the process that messages are forked from")
        assert site.process is not None
        (executor,) = (
            process
            for process in psutil.Process(site.process.pid).children(recursive=True)
            if process.status() != "zombie" and "client.executor" in process.cmdline()
        )
        for killed in (site.process, executor):  # nothing can be cleaned up by them now
            killed.kill()
        site.process.wait()
        until(lambda: not site.processes(), "its children end by themselves")
        (left,) = temporary.glob("hymate-*")
        assert list(left.glob("pymp-*"))
        site.start()
        until(lambda: not left.exists(), "the next one has cleared up")
        assert site.stop() == 0
    assert not list(temporary.glob("hymate-*"))
    assert not list(temporary.glob("pymp-*"))


def test_another_authority_is_not_spoken_to_and_a_limit_ends_the_waiting(
    tmp_path: Path, coordinator: Coordinator, hospitals: Path, sites: list[Site]
) -> None:
    site = Site(tmp_path / "north", coordinator, hospitals)
    sites.append(site)
    write_certificates(tmp_path / "other")
    text = site.file.read_text().replace(
        str(coordinator.folder / "ca.crt"), str(tmp_path / "other" / "ca.crt")
    )
    site.file.write_text(text)
    site.start("--give-up-after", "0.2")
    assert site.process is not None
    assert site.process.wait(90) == 1
    last = site.told().splitlines()[-1]
    assert last.startswith("hymate-client: gave up: ")
    assert "its certificate is not accepted" in last
    assert "Traceback" not in site.told()


def test_one_client_a_site(
    tmp_path: Path, coordinator: Coordinator, hospitals: Path, sites: list[Site]
) -> None:
    site = Site(tmp_path / "north", coordinator, hospitals)
    sites.append(site)
    site.start()
    until(lambda: "coordinator 127.0.0.1" in site.told(), "it runs")
    words = [sys.executable, "-m", "client.cli", "--config", str(site.file)]
    second = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 2
    assert "is run by another hymate-client already; stop that one first" in second.stderr
    assert site.stop() == 0


def test_nobody_but_the_coordinator_is_called(tmp_path: Path) -> None:
    from client.service import environment as client_environment
    from client.site import SiteConfig

    found = client_environment(SiteConfig(name="north", data=tmp_path, state=tmp_path), tmp_path, "mark")
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found[MARK] == "mark"
    assert found["FLWR_HOME"] == str(tmp_path / ".flower")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (node, "http_request_response"),
        (node, "_verify_fab"),
        (node, "FAB_VERIFICATION_ERROR"),
        (node, "time"),
        (node, "pull_objects"),
        (transport, "make_simple_http_retry_invoker"),
    ],
)
def test_a_flwr_without_a_part_we_rely_on_is_not_started(
    module: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supernode.demand_known_flwr()
    monkeypatch.delattr(module, name)
    with pytest.raises(InputFault, match=f"otherwise than this release needs .*{name}"):
        supernode.demand_known_flwr()


def test_a_flwr_whose_connection_takes_other_arguments_is_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node, "http_request_response", lambda address: None)
    with pytest.raises(InputFault, match="http_request_response"):
        supernode.demand_known_flwr()
