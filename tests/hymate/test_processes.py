"""Temporary folders of commands: gone when they end, swept when they were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hymate.processes import temporary_home

HOLD = """
import sys
from hymate.processes import temporary_home
with temporary_home() as home:
    print(home, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_command_left_is_swept_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    foreign = tmp_path / "hymate-of-somebody"  # no lock: not one of these
    foreign.mkdir()
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    homes = [Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout]
    holders[0].kill()
    holders[0].wait()
    assert all(home.is_dir() for home in homes)
    with temporary_home() as own:
        assert own.is_dir()
        assert [home.is_dir() for home in homes] == [False, True]
    holders[1].communicate()
    assert list(tmp_path.iterdir()) == [foreign]
