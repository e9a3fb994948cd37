"""docs/data.md: the example of a hospital's own tables prints what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hymate.cli import app
from hymate.command import run_command

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def block(text: str, after: str) -> list[str]:
    """The indented lines that follow the line `after`."""
    lines = text.split(f"\n{after}\n\n")[1].splitlines()
    end = next(i for i, line in enumerate(lines) if line and not line.startswith("    "))
    return [line[4:] for line in lines[:end] if line]


def test_tables_of_your_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("events.csv").write_text("\n".join(block(text, "`events.csv`")))
    both = block(text, "`labels.csv` and `patients.csv`")
    tables = [
        re.split(r"  +", line) for line in both[: next(i for i, line in enumerate(both) if "$" in line)]
    ]
    Path("labels.csv").write_text("\n".join(labels for labels, _ in tables))
    Path("patients.csv").write_text("\n".join(patients for _, patients in tables))
    shown = both[len(tables) :]
    command = " ".join(line.rstrip("\\") for line in shown[:4]).removeprefix("$ hymate ")
    assert run_command(app, "hymate", shlex.split(command)) == 0
    assert capsys.readouterr().out.splitlines() == shown[4:]
