"""`flower-server --keep`: one SuperLink, one study after the other, the sites stay connected."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.server.deployed import Deployed, started_by_servers

pytestmark = pytest.mark.deployment


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Deployed]:
    made = Deployed(tmp_path, study={"pretrain": {"rounds": 0}, "finetune": {"rounds": 1, "batch_size": 16}})
    made.write_data()
    yield made
    made.end()
    deadline = time.monotonic() + 20
    while left := started_by_servers(tmp_path):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.5)


def start_client(federation: Deployed, name: str) -> subprocess.Popen[str]:
    """`hymate-client` of the site, its words in NAME.log."""
    file = federation.folder / "sites" / name / "site.yaml"
    site = yaml.safe_load(file.read_text()) | {
        "coordinator": {"address": f"localhost:{federation.port}", "ca": "../../tls/ca.crt"},
        "key": f"../../keys/{name}.key",
        "health_address": None,
    }
    file.write_text(yaml.safe_dump(site))
    command = [sys.executable, "-m", "client.cli", "--config", str(file)]
    with (federation.folder / f"{name}.log").open("a") as log:
        return federation._start(command, {}, stdout=log, stderr=subprocess.STDOUT)


def superlinks(folder: Path) -> set[int]:
    found = set()
    for pid, words in ((p.pid, p.cmdline()) for p in psutil.process_iter() if p.status() != "zombie"):
        if "server.gate" in words and any(str(folder) in word for word in words):
            found.add(pid)
    return found


def until_said(server: subprocess.Popen[str], words: str) -> list[str]:
    """What a person has read by the time the words are there."""
    said: list[str] = []
    assert server.stderr is not None
    for line in server.stderr:
        said.append(line)
        if words in line:
            return said
    raise AssertionError(f"it never said '{words}': {said}")


@pytest.mark.slow
def test_the_next_study_uses_the_superlink_that_was_kept(federation: Deployed) -> None:
    told = federation.folder / "told.json"
    with told.open("w") as file:  # a report is more than a pipe holds that nobody reads
        first = federation.start_server("--keep", "--json", stdout=file)
    federation.wait_for(federation.run / "sites.json", of=first)  # the keys are in
    sites = [start_client(federation, name) for name in federation.sites]
    said = until_said(first, "SuperLink stays up")
    kept = superlinks(federation.folder)
    assert len(kept) == 1

    # The next study names what it was told, and finds its sites connected.
    address = said[-1].split("federation.superlink be ")[1].split(";")[0]
    second = federation.folder / "second"
    federation.federation = {"superlink": address, "wait_minutes": 2}
    federation.study = {**federation.study, "name": "next", "finetune": {"rounds": 2, "batch_size": 16}}
    federation.write_study()
    done = federation.serve("--out", str(second), "--keep", "--json")
    assert done.returncode == 0, done.stderr  # --keep has nothing to keep here, and does not wait for ever
    assert "stays up" not in done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report["study"] == "next"
    assert set(report["sites"]) == set(federation.sites)
    assert json.loads((second / "sites.json").read_text()) == json.loads(
        (federation.run / "sites.json").read_text()
    )
    rounds = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "round" for line in rounds) == 2

    assert first.poll() is None
    assert superlinks(federation.folder) == kept
    assert all(site.poll() is None for site in sites)
    first.send_signal(signal.SIGINT)
    _, rest = first.communicate(timeout=60)
    assert first.returncode == 0, rest  # its study had ended well
    assert "Traceback" not in "".join(said) + rest
    assert json.loads(told.read_text()) == json.loads((federation.run / "report.json").read_text())
    assert not superlinks(federation.folder)


@pytest.mark.slow
def test_a_kept_superlink_that_ends_is_told(federation: Deployed) -> None:
    first = federation.start_server("--keep")
    federation.wait_for(federation.run / "sites.json", of=first)
    for name in federation.sites:
        start_client(federation, name)
    until_said(first, "SuperLink stays up")
    for pid in superlinks(federation.folder):
        psutil.Process(pid).kill()
    _, said = first.communicate(timeout=60)
    assert first.returncode == 1, said
    assert "flower-server: the study has finished, but SuperLink ended" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert json.loads((federation.run / "status.json").read_text())["state"] == "finished"
