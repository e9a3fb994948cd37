"""The deployment files as data, and a console script run by the name they call it by."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
USER = 10001


def scripts() -> dict[str, str]:
    """Console scripts of the package: name to `module:function`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return dict(project["scripts"])


def run_script(name: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a console script as the wrapper that pip installs would."""
    module, function = scripts()[name].split(":")
    code = f"import sys; from {module} import {function} as main; sys.argv[0] = {name!r}; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
    )


@cache
def help_of(name: str) -> str:
    """What `NAME --help` prints; a script that cannot print it is a failure."""
    result = run_script(name, "--help")
    assert result.returncode == 0, result.stderr
    return result.stdout


def script_call(words: list[str]) -> list[str]:
    """The console script and its arguments within a container's whole command line."""
    if words[:2] == ["tini", "--"]:
        words = words[2:]
    if words[:2] == ["/bin/sh", "-c"]:
        text = re.sub(r"\$?\$\(.*?\)", "", words[2])
        words = shlex.split(text)
        assert words[0] == "exec", "a shell that stays would swallow the signal to stop"
        words = words[1:]
    return words


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Keyword and argument of each instruction; continued lines joined, comments left out."""
    text = re.sub(r"(?m)^\s*#.*\n", "", dockerfile.read_text())
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def exec_form(dockerfile: Path, keyword: str) -> list[str]:
    """The words of ENTRYPOINT, CMD or HEALTHCHECK in JSON form."""
    (argument,) = [argument for word, argument in instructions(dockerfile) if word == keyword]
    return [str(word) for word in json.loads(argument[argument.index("[") :])]


def compose(path: Path) -> dict[str, Any]:
    """A compose file with its variables filled in as Compose does, merge keys resolved."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", path.read_text())
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", r"/data-of/\1", text)
    return dict(yaml.safe_load(text))


def documents(path: Path) -> list[dict[str, Any]]:
    """The Kubernetes objects of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def of_kind(path: Path, *kinds: str) -> list[dict[str, Any]]:
    """Those of some kinds."""
    return [document for document in documents(path) if document["kind"] in kinds]
