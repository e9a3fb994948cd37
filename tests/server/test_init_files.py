"""`flower-server --init`: the example as it is, and with host and sites filled in."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from benchmarks.ports import free_ports
from hymate.command import run_command
from hymate.errors import InputFault
from server.certificates import make_certificates
from server.deployment_checks import check_deployment
from server.init_files import write_example
from server.server_cli import server_app
from server.study import load_study
from tests.server.deployed import write_key

SITES = ("north", "south-2", "east")


def test_what_is_given_is_filled_in_and_passes_the_checks(tmp_path: Path) -> None:
    words = ["--init", str(tmp_path / "study"), "--host", "localhost"]
    words += [word for name in SITES for word in ("--site", name)]
    assert run_command(server_app, "flower-server", words) == 0
    path = tmp_path / "study" / "study.yaml"
    make_certificates(tmp_path / "study" / "tls", ["localhost"])
    for name in SITES:
        write_key(tmp_path / "study" / "keys", name)
    port, health = free_ports(2)
    at = (f"federation.address=127.0.0.1:{port}", f"federation.health_address=127.0.0.1:{health}")
    study = load_study(path, at)
    assert study.federation is not None
    assert tuple(study.federation.sites) == SITES
    assert all(site.required for site in study.federation.sites.values())
    found = check_deployment(study, tmp_path / "run", resume=False, now=dt.datetime.now(dt.UTC))
    assert [one.line() for one in found if one.state == "fail"] == []
    steps = (tmp_path / "study" / "README.md").read_text()
    assert "--host localhost" in steps
    assert "CHANGE: what sites call" not in path.read_text()


def test_an_address_of_the_sixth_version_gets_its_brackets(tmp_path: Path) -> None:
    write_example(tmp_path / "study", "fd00::1")
    study = load_study(tmp_path / "study" / "study.yaml")
    assert study.federation is not None
    assert study.federation.public_address == "[fd00::1]:9092"
    assert list(study.federation.sites) == ["north", "south"], "what is not given stays the example"


@pytest.mark.parametrize(
    ("host", "sites", "words"),
    [
        ("host:9092", (), "neither a DNS name nor an IP address"),
        ("", ("a b",), "a b"),
        ("", ("a: {",), "site"),
        ("", ("a", "a"), "twice"),
    ],
)
def test_what_cannot_be_used_is_not_written(
    host: str, sites: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputFault, match=words) as fault:
        write_example(tmp_path / "study", host, sites)
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "study").exists()
