"""What `flower-server --dry-run` finds: every fault is one line that says where, what and what to do."""

from __future__ import annotations

import datetime as dt
import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ports import free_ports
from hymate.errors import InputFault
from hymate.evaluation_config import EvaluationConfig
from server.certificates import make_certificates
from server.deployment_checks import Finding, check_deployment, longest
from server.init_files import write_example
from server.study import load_study
from tests.server.deployed import Deployed, write_key


@pytest.fixture
def federation(tmp_path: Path) -> Deployed:
    return Deployed(tmp_path)


def findings(federation: Deployed, *, resume: bool = False, now: dt.datetime | None = None) -> list[Finding]:
    return check_deployment(
        load_study(federation.folder / "study.yaml"), federation.run, resume=resume, now=now
    )


def faults(federation: Deployed, **how: Any) -> list[str]:
    return [found.line() for found in findings(federation, **how) if found.state == "fail"]


def test_a_complete_federation_has_no_fault_and_nothing_is_left_behind(federation: Deployed) -> None:
    before = sorted(federation.folder.rglob("*"))
    found = findings(federation)
    assert [one.line() for one in found if one.state != "ok" and "GiB" not in one.what] == []
    assert sorted(federation.folder.rglob("*")) == before


Break = Callable[[Deployed], None]
OF_THE_STUDY = ("participation", "finetune", "strategy", "evaluation", "simulation")
"""Sections that are not of `federation:`."""


def other_key(federation: Deployed) -> None:
    make_certificates(federation.folder / "other", ["localhost"])
    (federation.folder / "other" / "server.key").replace(federation.folder / "tls" / "server.key")


def other_ca(federation: Deployed) -> None:
    make_certificates(federation.folder / "other", ["localhost"])
    (federation.folder / "other" / "ca.crt").replace(federation.folder / "tls" / "ca.crt")


def garbage(name: str) -> Break:
    return lambda federation: (federation.folder / name).write_text("garbage") and None


def change(**changes: Any) -> Break:
    def break_it(federation: Deployed) -> None:
        federation.study, federation.federation = (
            {k: v for k, v in changes.items() if k in OF_THE_STUDY},
            {k: v for k, v in changes.items() if k not in OF_THE_STUDY},
        )
        federation.write_study()

    return break_it


def same_key(federation: Deployed) -> None:
    for end in ("key", "pub"):
        keys = federation.folder / "keys"
        (keys / f"hospital_2.{end}").write_bytes((keys / f"hospital_1.{end}").read_bytes())


def private_key(federation: Deployed) -> None:
    keys = federation.folder / "keys"
    (keys / "hospital_1.pub").write_bytes((keys / "hospital_1.key").read_bytes())


def foreign_run(federation: Deployed) -> None:
    federation.run.mkdir()
    (federation.run / "thesis.docx").write_text("precious")


FAULTS: dict[str, tuple[Break, str]] = {
    "pooled training": (
        change(evaluation={"pooled_baseline": True}, simulation={"synthetic": {}}),
        "evaluation.pooled_baseline: no hospital gives its rows away",
    ),
    "no certificate": (lambda f: (f.folder / "tls/server.crt").unlink(), "server.crt: No such file"),
    "no key": (lambda f: (f.folder / "tls/server.key").unlink(), "server.key: No such file"),
    "broken certificate": (garbage("tls/server.crt"), "server.crt: holds no certificate in PEM"),
    "broken key": (garbage("tls/server.key"), "server.key: holds no private key in PEM"),
    "broken ca": (garbage("tls/ca.crt"), "ca.crt: holds no certificate in PEM"),
    "another's key": (other_key, "server.key: is not the key of"),
    "another's ca": (other_ca, "server.crt: is not signed by the authority in"),
    "another name": (
        change(public_address="coordinator.example.org:9092"),
        "does not name 'coordinator.example.org', by which sites will reach the coordinator (it names "
        "localhost, 127.0.0.1, ::1)",
    ),
    "no site key": (lambda f: (f.folder / "keys/hospital_1.pub").unlink(), "hospital_1.pub: No such file"),
    "broken site key": (garbage("keys/hospital_1.pub"), "hospital_1.pub: is no key"),
    "private site key": (private_key, "hospital_1.pub: holds a private key, which must not leave the site"),
    "one key twice": (same_key, "hospital_2.pub: is also the key of hospital_1"),
    "unknown required site": (
        change(participation={"required": ["hospital_7"]}),
        "participation.required: 'hospital_7' is no site of the federation; name some of: hospital_1",
    ),
    "too high a quorum": (change(participation={"quorum": 3}), "participation.quorum: needs 3 sites of 2"),
    "a quorum above what a round draws": (
        change(participation={"sample": 0.5, "quorum": 2}),
        "participation.quorum: needs 2 sites of the 1 that a round draws",
    ),
    "too large a sample": (change(participation={"sample": 3}), "participation.sample: draws 3 sites of 2"),
    "a weighting without a site": (
        change(strategy={"weighting": {"hospital_1": 1}}),
        "strategy.weighting: gives no number for site 'hospital_2'; give one for every site",
    ),
    "an address of another machine": (change(address="192.0.2.1:9092"), "192.0.2.1:9092: cannot listen"),
    "not a run folder": (foreign_run, "exists and is not a run directory"),
    "no superlink there": (
        change(superlink=f"localhost:{free_ports(1)[0]}"),
        "federation.superlink: localhost:",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_one_line(name: str, federation: Deployed) -> None:
    break_it, words = FAULTS[name]
    break_it(federation)
    found = faults(federation)
    assert any(words in line for line in found), found
    assert all("\n" not in line and ";" in line for line in found)
    if name != "an address of another machine":  # that is in no certificate either
        assert len(found) == 1, found


def test_a_run_folder_below_a_file_is_refused(federation: Deployed) -> None:
    study = load_study(federation.folder / "study.yaml")
    found = check_deployment(study, federation.folder / "study.yaml" / "run", resume=False)
    assert "cannot be written: Not a directory" in found[-1].what


def test_an_expired_certificate_is_refused(federation: Deployed) -> None:
    (line,) = faults(federation, now=dt.datetime.now(dt.UTC) + dt.timedelta(days=826))
    assert "server.crt: expired on" in line
    (line,) = faults(federation, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=1))
    assert "server.crt: is not valid before" in line


def test_a_certificate_must_outlast_the_study(federation: Deployed) -> None:
    study = load_study(federation.folder / "study.yaml")
    assert study.federation is not None
    length = longest(study, study.federation)
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=825)
    assert faults(federation, now=ends - length - dt.timedelta(minutes=5)) == []
    (line,) = faults(federation, now=ends - length + dt.timedelta(minutes=5))
    assert "the study may need it until" in line
    anew = study.model_copy(update={"evaluation": EvaluationConfig(leave_one_site_out=True)})
    assert longest(anew, study.federation) > length * 2


def test_a_port_in_use_is_named(federation: Deployed) -> None:
    for port, key in ((federation.port, "address"), (federation.health, "health_address")):
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            (line,) = faults(federation)
        assert f"federation.{key} 127.0.0.1:{port}: cannot listen there: Address already in use" in line
    assert faults(federation) == []


def test_a_run_that_goes_on_gives_what_was_killed_a_moment_to_leave(federation: Deployed) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", federation.port))
        other.listen()
        threading.Timer(1.0, lambda: other.shutdown(socket.SHUT_RDWR)).start()
        threading.Timer(1.1, other.close).start()
        assert faults(federation, resume=True) == []


def test_resuming_begins_where_there_is_no_run(federation: Deployed) -> None:
    assert faults(federation, resume=True) == []


def test_a_run_with_work_in_it_is_not_set_aside_unasked(federation: Deployed) -> None:
    (federation.run / "checkpoints").mkdir(parents=True)
    (federation.run / "study.yaml").write_text("name: x")
    assert faults(federation) == []  # it has done nothing that could be lost
    (federation.run / "checkpoints" / "describe-00000.safetensors").touch()
    (line,) = faults(federation)
    assert "holds a run that has not finished; add --resume to go on with it" in line
    assert faults(federation, resume=True) == []
    (federation.run / "status.json").write_text('{"state": "finished", "cause": ""}')
    assert faults(federation) == []


def test_a_key_that_others_can_read_is_a_warning(federation: Deployed) -> None:
    (federation.folder / "tls" / "server.key").chmod(0o644)
    warnings = [found.line() for found in findings(federation) if found.state == "warn"]
    assert any("can be read by others" in line for line in warnings)


def dry_run(federation: Deployed, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        federation.command("--dry-run", *words),
        cwd=federation.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_says_it_and_starts_nothing(federation: Deployed) -> None:
    done = dry_run(federation)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"127.0.0.1:{federation.port} is free" in done.stdout
    (federation.folder / "tls" / "ca.crt").unlink()
    same_key(federation)
    done = dry_run(federation, "--json")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 2
    checks = json.loads(done.stdout)
    assert checks["ok"] is False
    assert [check["state"] for check in checks["checks"]].count("fail") == 2
    assert not federation.run.exists()


def test_the_example_passes_once_keys_and_certificates_are_there(tmp_path: Path) -> None:
    write_example(tmp_path / "example")
    make_certificates(tmp_path / "example" / "tls", ["coordinator.example.org"])
    for name in ("north", "south"):
        write_key(tmp_path / "example" / "keys", name)
    port, health = free_ports(2)
    study = load_study(
        tmp_path / "example" / "study.yaml",
        (f"federation.address=127.0.0.1:{port}", f"federation.health_address=127.0.0.1:{health}"),
    )
    found = check_deployment(study, tmp_path / "run", resume=False)
    assert [one.line() for one in found if one.state == "fail"] == []
    with pytest.raises(InputFault, match="is there already"):
        write_example(tmp_path / "example")


BAD_SECTIONS = [
    ({"address": "9092"}, "write it as HOST:PORT"),
    ({"address": "host:99999"}, "write it as HOST:PORT"),
    ({"sites": {}}, "at least 1 item"),
    ({"tls": {"ca": "tls/ca.crt"}}, "tls.certificate is missing"),
    ({"health_address": "0.0.0.0:1", "address": "0.0.0.0:1"}, "give each its own port"),
    ({"wait": 3}, "key 'federation.wait' does not exist"),
]


@pytest.mark.parametrize(("section", "words"), BAD_SECTIONS, ids=[words for _, words in BAD_SECTIONS])
def test_a_bad_section_is_one_line(section: dict[str, Any], words: str, federation: Deployed) -> None:
    change(**section)(federation)
    with pytest.raises(InputFault, match=words) as fault:
        load_study(federation.folder / "study.yaml")
    assert "\n" not in str(fault.value)


def test_a_study_without_a_federation_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: x")
    (found,) = check_deployment(load_study(tmp_path / "study.yaml"), tmp_path / "run", resume=False)
    assert found.state == "fail"
    assert "has no `federation:` section" in found.line()
