"""`hymate-client check`: each line fails once, with its remedy, and a good site passes."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from client import cli
from client.keygen import make_key
from client.preflight import network
from client.preflight.lines import Line, Status
from client.preflight.machine import LEAST_FREE_BYTES
from client.preflight.run import preflight
from client.round_limit import count_round
from client.site import load_site
from hymate.command import run_command
from tests.client.coordinator import Coordinator, free_port, superlink, write_certificates
from tests.client.test_policy import WEIGHTS, ask_two_rounds
from tests.in_process import lay_out


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with superlink(tmp_path_factory.mktemp("coordinator")) as made:
        yield made


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    lay_out(folder, 1, stays=60)
    return folder / "data" / "hospital_1"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, coordinator: Coordinator) -> Path:
    made = make_key(tmp_path_factory.mktemp("keys"), "north")
    coordinator.register(made.public, "north")
    return made.private


@pytest.fixture
def content(tmp_path: Path, coordinator: Coordinator, hospital: Path, registered: Path) -> dict[str, Any]:
    """A site file in which everything is right."""
    return {
        "name": "north",
        "data": str(hospital),
        "key": str(registered),
        "coordinator": {
            "address": coordinator.address,
            "ca": str(coordinator.folder / "ca.crt"),
            "health_address": f"127.0.0.1:{coordinator.health_port}",
        },
        "health_address": f"127.0.0.1:{free_port()}",
        "policy": {"min_cell": 1, "tasks": ["in_hospital_mortality"]},
    }


def lines_of(tmp_path: Path, content: dict[str, Any], **given: Any) -> list[Line]:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    return list(preflight(path, **given))


def not_ok(lines: list[Line]) -> dict[str, Line]:
    return {line.name: line for line in lines if line.status is not Status.OK}


def test_a_good_site_passes_every_line(
    tmp_path: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    words = ["check", "--config", str(path), "--json"]
    assert run_command(cli.client_app, "hymate-client", words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert {line["status"] for line in told["lines"]} <= {"ok", "warn"}
    assert {line["name"] for line in told["lines"]} == {
        *("site file", "policy", "app", "cache", "state", "disk", "memory", "threads", "backend", "gpu"),
        *("ledger", "data", "labels", "vocabulary", "training step", "key", "own health", "authority"),
        *("reachable", "server certificate", "clock", "tls", "registered", "health"),
    }
    assert not list((tmp_path / "cache").iterdir()), "the step's store is removed again"


def test_the_first_wrong_key_of_the_site_file_is_all_there_is(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, {"name": "north", "dat": "x"})
    assert line.status is Status.FAIL
    assert "did you mean 'data'" in line.remedy


def test_what_is_wrong_with_data_and_machine_is_said(tmp_path: Path, content: dict[str, Any]) -> None:
    content.pop("coordinator")
    content.pop("key")
    (tmp_path / "file").write_text("no folder")
    changed = content | {
        "data": str(tmp_path / "nowhere"),
        "cache": str(tmp_path / "file"),
        "threads": 4096,
    }
    found = not_ok(lines_of(tmp_path, changed, free_bytes=LEAST_FREE_BYTES - 1))
    assert {name for name, line in found.items() if line.status is Status.FAIL} == {
        *("cache", "disk", "data", "key", "coordinator")
    }
    assert "nowhere" in found["data"].what
    assert "free space" in found["disk"].remedy
    assert found["threads"].status is Status.WARN
    assert "hymate-client keygen" in found["key"].remedy
    assert all(line.remedy for line in found.values())


def test_labels_that_are_missing_and_data_that_breaks_a_rule_fail(
    tmp_path: Path, content: dict[str, Any], hospital: Path
) -> None:
    content.pop("coordinator")
    content["policy"] = {"tasks": ["readmission", "in_hospital_mortality"], "min_cell": 1000}
    found = not_ok(lines_of(tmp_path, content))
    assert "readmission is allowed, but has no labels here" in found["labels"].what
    assert "in_hospital_mortality" in found["labels"].what, "it names what is there"
    assert "below its minimum of 1000" in found["training step"].what

    broken = tmp_path / "broken"
    shutil.copytree(hospital, broken)
    next((broken / "data").rglob("*.parquet")).write_bytes(b"not parquet")
    found = not_ok(lines_of(tmp_path, content | {"data": str(broken)}))
    assert found["data"].status is Status.FAIL
    assert "training step" not in found


def test_key_and_authority_are_read_closely(
    tmp_path: Path, content: dict[str, Any], registered: Path, coordinator: Coordinator
) -> None:
    key = tmp_path / "open.key"
    shutil.copy(registered, key)
    key.chmod(0o644)
    (tmp_path / "ca.crt").write_text("no certificate")
    content.pop("data")
    wrong = content | {
        "data": str(tmp_path),
        "key": str(key),
        "coordinator": {"address": f"127.0.0.1:{free_port()}", "ca": str(tmp_path / "ca.crt")},
    }
    found = not_ok(lines_of(tmp_path, wrong))
    assert found["key"].status is Status.FAIL
    assert found["key"].remedy == f"chmod 600 {key}"
    assert "no PEM certificate" in found["authority"].what
    assert "takes connections" not in found["reachable"].what
    key.chmod(0o640)
    assert not_ok(lines_of(tmp_path, wrong))["key"].status is Status.WARN
    key.unlink()
    assert "cannot be read" in not_ok(lines_of(tmp_path, wrong))["key"].what


def test_a_coordinator_that_is_another_or_does_not_know_the_key_fails(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    content["data"] = str(tmp_path)
    write_certificates(tmp_path / "other")
    content["coordinator"]["ca"] = str(tmp_path / "other" / "ca.crt")
    content["coordinator"]["health_address"] = f"127.0.0.1:{free_port()}"
    found = not_ok(lines_of(tmp_path, content))
    assert "not accepted" in found["tls"].what
    assert "registered" not in found, "a stranger is not asked"
    assert "UNAVAILABLE" in found["health"].what


def test_an_unknown_key_fails(tmp_path: Path, content: dict[str, Any]) -> None:
    made = make_key(tmp_path, "stranger")
    found = not_ok(lines_of(tmp_path, content | {"data": str(tmp_path), "key": str(made.private)}))
    assert made.fingerprint in found["registered"].what
    assert "stranger.pub" in found["registered"].remedy


def test_certificates_that_end_soon_or_have_ended_are_said(tmp_path: Path, content: dict[str, Any]) -> None:
    content["data"] = str(tmp_path)
    day = dt.timedelta(days=1)
    now = dt.datetime.now(dt.UTC)

    def at(moment: dt.datetime) -> dict[str, Line]:
        return not_ok(lines_of(tmp_path, content, now=moment))

    assert "server certificate" not in at(now)
    soon = at(now + 80 * day)["server certificate"]
    assert (soon.status, "left" in soon.what) == (Status.WARN, True)
    late = at(now + 400 * day)
    assert [late[name].status for name in ("server certificate", "authority")] == [Status.FAIL] * 2
    assert "expired on" in late["authority"].what
    early = at(now - 400 * day)["server certificate"]
    assert "valid only from" in early.what
    assert "clock" in early.remedy


def test_a_coordinator_whose_certificate_has_expired_is_not_trusted(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    """The real handshake, not only the dates."""
    folder = tmp_path / "expired"
    write_certificates(folder, begins=dt.timedelta(days=-9), lasts=dt.timedelta(days=8))
    with superlink(folder) as expired:
        content["data"] = str(tmp_path)
        content["coordinator"] = {"address": expired.address, "ca": str(folder / "ca.crt")}
        found = not_ok(lines_of(tmp_path, content))
    assert "expired on" in found["server certificate"].what
    assert "certificate has expired" in found["tls"].what


def test_what_does_not_speak_tls_is_no_coordinator(tmp_path: Path, content: dict[str, Any]) -> None:
    content["data"] = str(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        content["coordinator"] = {
            "address": f"127.0.0.1:{deaf.getsockname()[1]}",
            "ca": content["coordinator"]["ca"],
        }
        network_timeout, network.TIMEOUT_S = network.TIMEOUT_S, 0.5
        try:
            found = not_ok(lines_of(tmp_path, content))
        finally:
            network.TIMEOUT_S = network_timeout
    assert "does not speak TLS" in found["tls"].what


@pytest.mark.parametrize(
    ("skew", "status"),
    [(0.4, "ok"), (-2.0, "ok"), (3.0, "warn"), (-10.0, "warn"), (6.0, "fail"), (-16.0, "fail")],
)
def test_a_clock_that_is_off_is_said(skew: float, status: str) -> None:
    line = network.clock(skew)
    assert line.status == status
    assert ("ahead of" in line.what) == (skew > network.NOTABLE_S)


def test_a_taken_health_port_fails(tmp_path: Path, content: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        content |= {"data": str(tmp_path), "health_address": f"127.0.0.1:{taken.getsockname()[1]}"}
        assert "cannot be used" in not_ok(lines_of(tmp_path, content))["own health"].what


def test_vocabulary_coverage_and_rounds_come_from_what_the_site_keeps(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    content.pop("coordinator")
    content["policy"]["max_rounds_per_study"] = 2
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    ask_two_rounds(path)
    found = lines_of(tmp_path, content)
    (vocabulary,) = [line for line in found if line.name == "vocabulary"]
    assert vocabulary.status is Status.OK
    assert "100.0 % of the observations of in_hospital_mortality" in vocabulary.what
    assert "study small has had 2 training rounds" in not_ok(found)["rounds"].what

    store = next((tmp_path / "cache").glob("*/store.json"))
    header = json.loads(store.read_text())
    header["unknown_codes"] = {"rare": 1, "LACTATE": 2 * header["triplets"]}
    store.write_text(json.dumps(header))
    warned = not_ok(lines_of(tmp_path, content))["vocabulary"]
    assert "most frequent without: LACTATE, rare" in warned.what
    assert "33.3 %" in warned.what


def test_rounds_below_the_limit_are_no_warning(tmp_path: Path, content: dict[str, Any]) -> None:
    content |= {"data": str(tmp_path)}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(content))
    count_round(load_site(tmp_path / "site.yaml"), "small", "pretrain", 1, WEIGHTS)
    (line,) = [line for line in lines_of(tmp_path, content) if line.name == "rounds"]
    assert (line.status, line.what) == (Status.OK, "study small has had 1 training round")


def test_a_failing_check_ends_with_1_and_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"name: north\ndata: {tmp_path}\n")
    assert run_command(cli.client_app, "hymate-client", ["check", "--config", str(path)]) == 1
    told = capsys.readouterr().out
    assert "fail  data" in told
    assert "-> " in told


def test_what_init_writes_passes_once_the_paths_are_filled_in(
    tmp_path: Path, content: dict[str, Any], hospital: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "My hospital"
    assert run_command(cli.client_app, "hymate-client", ["init", str(home)]) == 0
    path = home / "site.yaml"
    assert str(path) in capsys.readouterr().out
    text = path.read_text()
    assert load_site(path).name == "My-hospital"
    for placeholder, real in [
        ("/path/to/meds", str(hospital)),
        ("coordinator.example.org:9092", content["coordinator"]["address"]),
        ("ca: ca.crt", f"ca: {content['coordinator']['ca']}"),
        ("key: My-hospital.key", f"key: {content['key']}"),
        ("127.0.0.1:9094", content["health_address"]),
    ]:
        assert placeholder in text
        text = text.replace(placeholder, real)
    path.write_text(text)
    assert not [line for line in preflight(path) if line.status is Status.FAIL]
    assert run_command(cli.client_app, "hymate-client", ["init", str(home)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["check"], ["keygen"], ["init"]])
def test_help_teaches(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli.client_app, "hymate-client", [*words, "--help"]) == 0
    assert f"hymate-client {words[0] if words else 'init'} " in capsys.readouterr().out


def test_without_a_site_file_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["check"], ["--give-up-after", "1"]):
        assert run_command(cli.client_app, "hymate-client", words) == 2
        assert "--config" in capsys.readouterr().err


def test_a_site_without_coordinator_cannot_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("name: north\ndata: x\n")
    assert run_command(cli.client_app, "hymate-client", ["--config", str(path)]) == 2
    assert "key 'coordinator' is missing" in capsys.readouterr().err


def test_messages_that_train_nothing_import_no_torch() -> None:
    """A process is started for every message; the command itself stays light too."""
    code = (
        "import sys, client.service, client.cli; assert not {'flwr', 'torch', 'polars'} & set(sys.modules);"
        "import client.app, client.queries; assert not {'torch', 'sklearn', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
