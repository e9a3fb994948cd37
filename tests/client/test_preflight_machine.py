"""`hymate-client check` on machines that lack something, or have more than is used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
import torch
import yaml
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.keygen import make_key
from client.preflight import machine, network
from client.preflight.lines import Line, Status
from client.preflight.run import preflight
from client.site import Coordinator
from hymate.ops import backend
from tests.client.coordinator import write_certificates
from tests.in_process import lay_out


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    lay_out(folder, 1, stays=40)
    return folder / "data" / "hospital_1"


def lines_of(tmp_path: Path, data: Path, **more: Any) -> dict[str, Line]:
    """The last line of each name; the site has neither key nor coordinator."""
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump({"name": "north", "data": str(data), **more}))
    return {line.name: line for line in preflight(path)}


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    free = machine.LEAST_MEMORY_BYTES - 1
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    (line,) = machine.check_memory()
    assert (line.status, line.remedy) == (Status.WARN, "give the site 1.00 GiB or more")


def test_a_slow_backend_is_a_warning_and_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = backend.Choice(backend.Backend.TORCH, "no compiler was there")
    monkeypatch.setattr(backend, "choose_backend", lambda *_: slow)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    scan, gpu = machine.check_backend()
    assert (scan.status, "no compiler was there" in scan.what) == (Status.WARN, True)
    assert "C++ compiler" in scan.remedy
    assert gpu.what.startswith("Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [line.what for line in machine.check_backend()][1].startswith("none")


def test_an_epoch_longer_than_a_round_waits_is_a_warning(
    tmp_path: Path, hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "LONG_EPOCH_S", 0.0)
    line = lines_of(tmp_path, hospital, policy={"min_cell": 1})["training step"]
    assert line.status is Status.WARN
    assert "deadline_minutes" in line.remedy


def test_a_cache_that_is_no_folder_is_told_and_nothing_more_breaks(tmp_path: Path, hospital: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found = lines_of(tmp_path, hospital, cache="file", policy={"min_cell": 1})
    assert found["cache"].status is found["training step"].status is Status.FAIL
    assert "file" in found["training step"].what
    assert found["training step"].remedy
    assert found["data"].status is Status.OK
    assert "coordinator" in found, "the check went on"


def test_a_health_service_that_the_site_file_does_not_name_is_not_asked(tmp_path: Path) -> None:
    (line,) = network.check_health(Coordinator(address="localhost:1", ca=tmp_path))
    assert (line.status, line.what) == (
        Status.OK,
        "not asked: the site file has no `coordinator.health_address`",
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "answers otherwise"),
        (httpx.ConnectTimeout("late"), "not known (ConnectTimeout)"),
        (
            httpx.HTTPStatusError(
                "", request=httpx.Request("POST", "https://x"), response=httpx.Response(503)
            ),
            "the coordinator answers 503",
        ),
    ],
    ids=["no refusal", "no answer", "another refusal"],
)
def test_what_cannot_be_asked_of_the_coordinator_is_a_warning(
    answer: Exception | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def activate(*_: object) -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(FleetHttpClient, "ActivateNode", activate)
    write_certificates(tmp_path)
    key = make_key(tmp_path, "north").private
    line = network._registration(Coordinator(address="localhost:1", ca=tmp_path / "ca.crt"), key)
    assert line.status is Status.WARN
    assert words in line.what
    assert line.remedy
