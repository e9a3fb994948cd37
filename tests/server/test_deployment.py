"""`flower-server` as a person runs it: TLS, node keys, real SuperLink and SuperNodes, real processes."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.control import study_bundle
from tests.server.deployed import Deployed, started_by_servers, write_key

pytestmark = pytest.mark.deployment

Build = Callable[..., Deployed]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Build]:
    """Makes a federation in this test's folder; afterwards nothing that a server started may run."""
    made: list[Deployed] = []

    def build(**changes: Any) -> Deployed:
        made.append(Deployed(tmp_path, **changes))
        return made[-1]

    yield build
    for federation in made:
        federation.end()
    deadline = time.monotonic() + 20
    while left := started_by_servers(tmp_path):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.5)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line a person reads; there is no traceback above it."""
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_study_over_tls_with_node_keys_is_stopped_resumed_and_finished(deployed: Build) -> None:
    federation = deployed(study={"finetune": {"rounds": 1, "batch_size": 16}})
    federation.write_data()
    write_key(federation.folder / "keys", "stranger")
    server = federation.start_server()
    federation.wait_for(federation.run / "sites.json", of=server)
    nodes = json.loads((federation.run / "sites.json").read_text())
    assert sorted(nodes.values()) == list(federation.sites)
    stranger = federation.start_site("hospital_1", key="stranger")
    for name in federation.sites:
        federation.start_site(name)
    federation.wait_for(federation.run / "metrics.jsonl", '"round"', of=server)
    assert stranger.poll() not in (None, 0)  # its key is not registered

    server.send_signal(signal.SIGTERM)
    _, said = server.communicate(timeout=60)
    assert server.returncode == 143, said
    assert study_bundle().sha256 in said
    assert "hospital_1 online, hospital_2 online" in said
    assert "pretraining" in said
    assert "--resume goes on" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not started_by_servers(federation.folder)
    assert json.loads((federation.run / "status.json").read_text())["state"] == "stopped"

    done = federation.serve("--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("going on after pretrain round 1") == 1
    assert "fine-tuning" in done.stderr
    journal = [json.loads(line) for line in (federation.run / "metrics.jsonl").read_text().splitlines()]
    rounds = [(line["phase"], line["round"]) for line in journal if line["event"] == "round"]
    assert rounds == [("pretrain", 1), ("finetune", 1)]  # none was done twice
    report = json.loads(done.stdout)
    assert report == json.loads((federation.run / "report.json").read_text())
    assert set(report["sites"]) == set(federation.sites)
    assert json.loads((federation.run / "sites.json").read_text()) == nodes  # sites stayed who they were
    assert json.loads((federation.run / "status.json").read_text())["state"] == "finished"
    again = federation.serve("--resume", "--json")
    assert (again.returncode, json.loads(again.stdout)) == (0, report)


@pytest.mark.slow
def test_a_site_that_trusts_another_authority_never_joins(deployed: Build) -> None:
    from server.certificates import make_certificates

    federation = deployed(federation={"wait_minutes": 0.2})
    make_certificates(federation.folder / "other", ["localhost"])
    site = federation.start_site("hospital_1", ca="other/ca.crt")
    done = federation.serve()
    assert done.returncode == 1
    assert "0 of 2 sites connected within 0.2 minutes; missing: hospital_1, hospital_2" in only_line(done)
    assert json.loads((federation.run / "status.json").read_text())["state"] == "failed"
    site.terminate()
    site.wait(20)
    assert "CERTIFICATE_VERIFY_FAILED" in (federation.folder / "hospital_1.log").read_text()


@pytest.mark.slow
def test_orders_come_from_this_machine_alone_and_a_second_study_may_give_some(
    deployed: Build,
) -> None:
    federation = deployed()
    server = federation.start_server()
    federation.wait_for(federation.run / "sites.json", of=server)
    trust = ssl.create_default_context(cafile=federation.folder / "tls" / "ca.crt")

    def status(path: str, **headers: str) -> int:
        request = urllib.request.Request(
            f"https://localhost:{federation.port}{path}", headers=headers, data=b"" if "v1" in path else None
        )
        try:
            return int(urllib.request.urlopen(request, context=trust, timeout=10).status)
        except urllib.error.HTTPError as refused:
            return refused.code

    # A proxy on this machine says for whom it asks, so the caller counts as far away.
    far = {"X-Forwarded-For": "203.0.113.7"}
    assert status("/docs") == 200
    for path in ("/docs", "/v1/control/register-node", "/v1/control/start-run", "/v1/runtime/claim-task"):
        assert status(path, **far) == 403, path
    assert status("/health", **far) == 200
    assert status("/v1/fleet/activate-node", **far) not in (200, 403)  # let through, and refused for no key

    # A study of another folder uses the SuperLink that is there, and leaves it as it was.
    nodes = (federation.run / "sites.json").read_text()
    federation.federation = {"superlink": f"localhost:{federation.port}", "wait_minutes": 0.05}
    federation.write_study()
    second = federation.serve("--out", str(federation.folder / "second"))
    assert second.returncode == 1
    assert "0 of 2 sites connected within 0.05 minutes" in only_line(second)
    assert (federation.folder / "second" / "sites.json").read_text() == nodes  # the keys were in already
    assert status("/health") == 200

    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=60)
    assert server.returncode == 130
    assert "--resume goes on" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_superlink_that_dies_is_the_end_in_one_line(deployed: Build) -> None:
    federation = deployed()
    server = federation.start_server()
    federation.wait_for(federation.run / "sites.json", of=server)
    (link,) = [pid for pid, words in started_by_servers(federation.folder).items() if "server.gate" in words]
    psutil.Process(link).kill()
    out, err = server.communicate(timeout=60)
    assert server.returncode == 1
    assert "SuperLink ended" in only_line(subprocess.CompletedProcess([], 1, out, err))


@pytest.mark.slow
def test_a_study_whose_process_is_killed_ends_in_one_line(deployed: Build) -> None:
    federation = deployed(sites=("hospital_1",))
    federation.start_site("hospital_1")
    server = federation.start_server()
    federation.wait_for(federation.run / "metrics.jsonl", "describe", of=server)
    (carrier,) = [
        pid
        for pid, words in started_by_servers(federation.folder).items()
        if any(word.endswith("flwr-serverapp") for word in words)
    ]
    psutil.Process(carrier).kill()
    out, err = server.communicate(timeout=120)
    assert server.returncode == 1
    line = only_line(subprocess.CompletedProcess([], 1, out, err))
    assert "go on with --resume" in line
    assert json.loads((federation.run / "status.json").read_text())["state"] == "failed"
