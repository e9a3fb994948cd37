"""docs/deploy.md: the commands of its first section, run as they stand there by one who has just begun."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.deploy.files import ROOT, scripts
from tests.deploy.namespaces import COORDINATOR, NoNamespaces, network
from tests.faults.federation import processes
from tests.server.deployed import OWNER

PAGE = ROOT / "docs" / "deploy.md"
SECTION = "## Three hospitals on one machine"
DONE_ALREADY = ("make install", "export PATH")
LIMIT_S = 1500


def commands() -> list[str]:
    """The indented lines of the section."""
    section = PAGE.read_text().split(SECTION + "\n", 1)[1].split("\n## ", 1)[0]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


@contextlib.contextmanager
def somewhere() -> Iterator[list[str]]:
    """What to put before a program so that nobody else uses the ports of the page, if that is possible."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(network()).inside(COORDINATOR, [], Path("/"))
        except NoNamespaces:
            yield []


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Whatever was started and not ended is ended, also where the commands did not come to their end."""
    try:
        yield
    finally:
        for process in processes(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_they_are_fewer_than_fifteen() -> None:
    *steps, last = commands()
    assert last.startswith("kill"), "the clients are ended at last"
    assert 10 < len(steps) < 15
    assert [step.startswith(DONE_ALREADY) for step in steps].count(True) == 2


@pytest.mark.deployment
@pytest.mark.timeout(LIMIT_S + 60)
def test_they_lead_from_nothing_to_a_report(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, entry in scripts().items():
        module, function = entry.split(":")
        lines = [f"#!{sys.executable}", "import sys", f"from {module} import {function}"]
        (programs / name).write_text("\n".join([*lines, f"sys.exit({function}())\n"]))
        (programs / name).chmod(0o755)
    script = ["set -m"]
    for number, command in enumerate(commands()):
        if not command.startswith(DONE_ALREADY):
            script += [f"echo '=== {number}'", command, 'echo "=== code $?"']
    script.append("wait")
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_WAIT_POLICY": "passive",
        OWNER: str(tmp_path),
    }
    with somewhere() as before, nothing_left(tmp_path):
        done = subprocess.run(
            [*before, "env", "-C", str(tmp_path), "bash", "-c", "\n".join(script)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    (tmp_path / "told.txt").write_text(done.stdout)
    told = {
        commands()[int(number)]: (words, int(code))
        for number, words, code in re.findall(
            r"^=== (\d+)\n(.*?)^=== code (\d+)$", done.stdout, re.DOTALL | re.MULTILINE
        )
    }
    assert len(told) == len(commands()) - 2, done.stdout
    (check,) = [command for command in told if " check " in command]
    failed = re.findall(r"^fail +(.+?) {2,}", told[check][0], re.MULTILINE)
    assert (told[check][1], failed) == (1, ["reachable"]), told[check][0]
    others = {command: code for command, (_, code) in told.items() if command != check}
    assert set(others.values()) == {0}, done.stdout
    assert "Traceback" not in done.stdout
    report = json.loads((tmp_path / "rehearsal" / "runs" / "my-study" / "report.json").read_text())
    assert sorted(report["sites"]) == ["east", "north", "south"]
