"""The compose files: valid, hardened, and a hospital reaches the coordinator alone."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from client.site import load_site, port_of
from server.study import load_study
from tests.deploy.files import (
    COMPOSE,
    DEPLOY,
    DOCKERFILES,
    USER,
    compose,
    exec_form,
    help_of,
    instructions,
    script_call,
)

REHEARSAL = DEPLOY / "compose.yaml"
MADE_LATER = {DEPLOY / "rehearsal" / "keys", DEPLOY / "rehearsal" / "tls"}
named = pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)


def services(path: Path) -> dict[str, dict[str, Any]]:
    return dict(compose(path)["services"])


def test_a_rehearsal_and_a_hospital_have_a_file() -> None:
    assert [path.name for path in COMPOSE] == ["compose.site.yaml", "compose.yaml"]
    assert list(services(REHEARSAL)) == ["coordinator", "north", "south", "east"]


@named
def test_it_is_a_compose_file(path: Path) -> None:
    PyCompose.from_yaml(yaml.safe_dump(compose(path))).validate()


def test_a_wrong_key_would_be_found() -> None:
    content = compose(REHEARSAL)
    content["services"]["north"]["read_onyl"] = True
    with pytest.raises(ValueError, match="read_onyl"):
        PyCompose.from_yaml(yaml.safe_dump(content)).validate()


@named
def test_every_container_is_hardened(path: Path) -> None:
    for name, service in services(path).items():
        assert service["user"] == f"{USER}:{USER}", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert not {"privileged", "cap_add", "ports", "network_mode", "pid", "ipc"} & set(service), name


@named
def test_only_the_image_s_own_places_are_writable(path: Path) -> None:
    for name, service in services(path).items():
        image = _dockerfile(service)
        (volume,) = [value for word, value in instructions(image) if word == "VOLUME"]
        (temporary,) = service["tmpfs"]
        assert temporary.startswith("/tmp:")
        for mount in service["volumes"]:
            source, target, *mode = mount.split(":")
            if target == volume:
                assert source in compose(path)["volumes"], f"{name}: {source} is no named volume"
            else:
                assert (target, mode) == ("/data", ["ro"]), f"{name}: {mount}"


def test_each_hospital_shares_a_network_with_the_coordinator_alone() -> None:
    content = compose(REHEARSAL)
    hospitals = {name: service for name, service in content["services"].items() if name != "coordinator"}
    seen: set[str] = set()
    for service in hospitals.values():
        (network,) = service["networks"]
        assert network not in seen, "two hospitals would see each other"
        seen.add(network)
    assert set(content["services"]["coordinator"]["networks"]) == seen == set(content["networks"])
    assert all(network == {"internal": True} for network in content["networks"].values())


@named
def test_health_is_asked_as_the_image_does(path: Path) -> None:
    for service in services(path).values():
        assert service["healthcheck"]["test"] == ["CMD", *exec_form(_dockerfile(service), "HEALTHCHECK")]


@named
def test_private_keys_are_secrets_and_nothing_else_is(path: Path) -> None:
    content = compose(path)
    assert all(Path(secret["file"]).suffix == ".key" for secret in content["secrets"].values())
    assert not any(Path(config["file"]).suffix == ".key" for config in content["configs"].values())
    assert all(
        set(entry) == {"file"} for entry in [*content["secrets"].values(), *content["configs"].values()]
    )
    assert not re.search(r"PRIVATE KEY|password|token", path.read_text(), re.IGNORECASE)
    for name, service in content["services"].items():
        assert len(service["secrets"]) == 1, f"{name} holds other people's keys"
    used = [secret["source"] for service in content["services"].values() for secret in service["secrets"]]
    assert sorted(used) == sorted(content["secrets"])


def test_files_of_the_rehearsal_exist_or_are_made_by_its_steps() -> None:
    content = compose(REHEARSAL)
    for entry in [*content["secrets"].values(), *content["configs"].values()]:
        file = DEPLOY / entry["file"]
        assert file.parent in MADE_LATER or file.is_file(), file
    for service in content["services"].values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve().is_file()


def test_study_and_site_files_name_what_is_mounted() -> None:
    content = compose(REHEARSAL)
    study = load_study(DEPLOY / "rehearsal" / "study.yaml")
    assert study.federation is not None
    tls = study.federation.tls
    assert tls.certificate is not None
    assert tls.key is not None
    coordinator = _mounted(content["services"]["coordinator"])
    wanted = [
        tls.ca,
        tls.certificate,
        tls.key,
        *(entry.public_key for entry in study.federation.sites.values()),
    ]
    for file in wanted:
        inside = PurePosixPath("/study") / file.relative_to(DEPLOY / "rehearsal").as_posix()
        assert coordinator[str(inside)] == file, inside
    hospitals = set(content["services"]) - {"coordinator"}
    assert set(study.federation.sites) == hospitals
    for name in hospitals:
        site = load_site(DEPLOY / "rehearsal" / f"{name}.yaml")
        mounted = _mounted(content["services"][name])
        assert site.name == name
        assert site.data == Path("/data")
        assert site.cache.is_relative_to("/var/lib/hymate")
        assert site.state.is_relative_to("/var/lib/hymate")
        assert site.coordinator is not None
        assert site.key is not None
        assert mounted[f"/site/{site.key.name}"].name == f"{name}.key"
        assert mounted[f"/site/{site.coordinator.ca.name}"] == tls.ca
        assert site.coordinator.address == study.federation.public_address
        assert port_of(study.federation.address) == port_of(site.coordinator.address)


@named
def test_commands_are_console_scripts_with_these_options(path: Path) -> None:
    for service in services(path).values():
        image = _dockerfile(service)
        call = script_call([*service.get("entrypoint", exec_form(image, "ENTRYPOINT")), *service["command"]])
        options = [word for word in call[1:] if word.startswith("--")]
        assert options
        assert all(option in help_of(call[0]) for option in options)
        assert call[call.index("--config") + 1] in _mounted(service)


def _mounted(service: dict[str, Any]) -> dict[str, Path]:
    """Path in the container to file outside, of configs and secrets."""
    found = {}
    for path in COMPOSE:
        content = compose(path)
        if service not in content["services"].values():
            continue
        for kind in ("configs", "secrets"):
            for entry in service[kind]:
                found[entry["target"]] = DEPLOY / content[kind][entry["source"]]["file"]
    return found


def _dockerfile(service: dict[str, Any]) -> Path:
    side = "server" if service["image"].startswith("flower-server:") else "client"
    (path,) = [path for path in DOCKERFILES if path.stem == side]
    return path
