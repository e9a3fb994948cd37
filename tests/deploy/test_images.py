"""The Dockerfiles: linted, and what they copy, install and start exists."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from client.site import SiteConfig
from server.federation_config import FederationConfig
from tests.deploy.files import DOCKERFILES, ROOT, USER, exec_form, help_of, instructions, script_call

HADOLINT = Path(sys.executable).parent / "hadolint"
named = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)


def test_both_sides_have_an_image() -> None:
    assert [path.name for path in DOCKERFILES] == ["client.Dockerfile", "server.Dockerfile"]


@named
def test_hadolint_finds_nothing(path: Path) -> None:
    found = subprocess.run(
        [HADOLINT, "--no-color", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize(
    ("line", "broken", "rule"),
    [
        ("USER 10001:10001", "USER root", "DL3002"),
        ("USER 10001:10001", "USR 10001:10001", "unexpected"),
        ("--no-install-recommends ", "", "DL3015"),
        ("ENTRYPOINT [", "ENTRYPOINT ", "DL3025"),
    ],
)
@named
def test_a_wrong_line_would_be_found(path: Path, line: str, broken: str, rule: str, tmp_path: Path) -> None:
    text = path.read_text()
    assert line in text
    (tmp_path / path.name).write_text(text.replace(line, broken))
    found = subprocess.run(
        [HADOLINT, "--no-color", tmp_path / path.name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 1
    assert rule in found.stdout + found.stderr


@named
def test_base_images_carry_a_whole_version(path: Path) -> None:
    images = [
        value.split("=")[1] for word, value in instructions(path) if word == "ARG" and "_IMAGE=" in value
    ]
    assert images
    for image in images:
        tag = image.split(":")[1]
        assert tag.split("-")[0].count(".") == 2, f"{image} moves"
    stages = {value.split(" AS ")[1] for word, value in instructions(path) if word == "FROM"}
    for word, value in instructions(path):
        if word == "FROM":
            base = value.split()[0]
            assert base in stages or base.startswith("${"), f"{base} is pinned nowhere"


@named
def test_it_never_runs_as_root(path: Path) -> None:
    runtime = instructions(path)[_begin_of_runtime(path) :]
    assert [value for word, value in runtime if word == "USER"] == [f"{USER}:{USER}"]
    (setup,) = [value for word, value in runtime if word == "RUN"]
    assert f"useradd --uid {USER}" in setup
    (volume,) = [value for word, value in runtime if word == "VOLUME"]
    assert f"--owner {USER} --group {USER} --mode 0700 {volume}" in setup, (
        "a volume takes its owner from here"
    )


@named
def test_what_is_copied_exists_and_makes_the_whole_wheel(path: Path) -> None:
    sources = [
        source
        for word, value in instructions(path)
        if word == "COPY" and not value.startswith("--from")
        for source in value.split()[:-1]
    ]
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {
        *project["tool"]["scikit-build"]["wheel"]["packages"],
        *project["project"]["license-files"],
        project["project"]["readme"],
        "pyproject.toml",
        "CMakeLists.txt",
        "constraints.txt",
    }
    assert needed == set(sources)


@named
def test_the_context_holds_what_is_copied_and_no_data(path: Path) -> None:
    lines = path.with_name(path.name + ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "what is not named must stay out"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert all((ROOT / rule).exists() for rule in allowed)
    for word, value in instructions(path):
        if word == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert any(fnmatch(rule, f"{source}*") for rule in allowed), f"{source} is left out"
    for secret in ("deploy/rehearsal", "runs", ".venv", ".git", "data"):
        assert not any(rule == secret or secret.startswith(f"{rule}/") for rule in allowed)


@named
def test_every_pip_keeps_to_the_versions_tested(path: Path) -> None:
    text = " ".join(value for word, value in instructions(path) if word == "RUN")
    _, *calls = text.split("pip install")
    assert calls
    assert all(call.startswith(" -c constraints.txt") for call in calls)


@named
def test_entry_point_is_a_console_script(path: Path) -> None:
    call = script_call(exec_form(path, "ENTRYPOINT") + exec_form(path, "CMD"))
    assert call[0] == path.stem.replace("client", "hymate-client").replace("server", "flower-server")
    assert call[1] in help_of(call[0])


def test_the_health_check_asks_where_the_service_listens_by_default() -> None:
    ports = {"client": SiteConfig.model_fields["health_address"].default}
    ports["server"] = FederationConfig.model_fields["health_address"].default
    for path in DOCKERFILES:
        check = exec_form(path, "HEALTHCHECK")
        assert check == ["python", "-m", "hymate.health", ports[path.stem]]
        exposed = " ".join(value for word, value in instructions(path) if word == "EXPOSE").split()
        assert ports[path.stem].rsplit(":", 1)[1] in exposed


@named
def test_nothing_phones_home(path: Path) -> None:
    (environment,) = [
        value
        for word, value in instructions(path)[_begin_of_runtime(path) :]
        if word == "ENV" and "HOME" in value
    ]
    assert {
        "FLWR_TELEMETRY_ENABLED=0",
        "FLWR_DISABLE_UPDATE_CHECK=1",
        "RAY_USAGE_STATS_ENABLED=0",
        "HOME=/tmp",
    } <= set(environment.split())


@named
def test_labels_name_the_release(path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (labels,) = [value for word, value in instructions(path) if word == "LABEL"]
    assert f'image.version="{version}"' in labels


def test_the_client_has_a_cuda_target_and_a_cpu_default() -> None:
    (path,) = [path for path in DOCKERFILES if path.stem == "client"]
    stages = [value.split(" AS ")[1] for word, value in instructions(path) if word == "FROM"]
    assert "cuda" in stages
    assert stages[-1] == "cpu"


def _begin_of_runtime(path: Path) -> int:
    (begin,) = [
        at
        for at, (word, value) in enumerate(instructions(path))
        if word == "FROM" and value.endswith("AS runtime")
    ]
    return begin
