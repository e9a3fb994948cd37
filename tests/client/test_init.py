"""`hymate-client init`: what is given is filled in, what is not stays marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.cli import client_app
from client.keygen import public_key_of
from client.site import load_site
from hymate.command import run_command

NAME = "hymate-client"


def test_what_is_given_is_filled_in_and_the_key_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / 'a "folder": \\1 of data'
    words = ["init", "north", "--data", str(data), "--coordinator", "[::1]:9092", "--ca", "study/ca.crt"]
    assert run_command(client_app, NAME, [*words, "--health", "127.0.0.1:9101", "--keygen"]) == 0
    told = capsys.readouterr().out
    site = load_site(Path("north/site.yaml"))
    assert (site.name, site.data, site.health_address) == ("north", data, "127.0.0.1:9101")
    assert site.coordinator is not None
    assert (site.coordinator.address, site.coordinator.ca) == ("[::1]:9092", tmp_path / "study/ca.crt")
    assert site.key == tmp_path / "north/north.key"
    assert public_key_of(site.key)
    assert "FILL IN" not in told + Path("north/site.yaml").read_text()
    assert "fingerprint" in told
    assert "policy:" in Path("north/site.yaml").read_text(), "the rest of the example is there"


def test_what_is_not_given_stays_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(client_app, NAME, ["init", str(tmp_path / "n"), "--coordinator", "host:9092"]) == 0
    marked = [line for line in (tmp_path / "n/site.yaml").read_text().splitlines() if "FILL IN" in line]
    assert [line.split(":")[0].strip() for line in marked] == ["data", "ca"]
    assert "marks FILL IN" in capsys.readouterr().out
    assert not list((tmp_path / "n").glob("*.key"))


def test_what_cannot_be_used_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for address, words in (
        ("host", "write it as HOST:PORT"),
        ("host:99999", "the port is between 1 and 65535"),
    ):
        arguments = ["init", str(tmp_path / "n"), "--coordinator", address, "--keygen"]
        assert run_command(client_app, NAME, arguments) == 2
        told = capsys.readouterr().err
        assert f"key 'coordinator.address': {words}" in told
    assert not (tmp_path / "n").exists()
