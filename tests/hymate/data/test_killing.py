"""Real processes, really killed; and a disk that takes no more: the older content is still there, whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLS = 6


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    folder = tmp_path_factory.mktemp("killing")
    command = [sys.executable, "-m", "tests.hymate.data.killing", str(folder), str(KILLS)]
    process = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout), process.stderr, folder


@pytest.mark.parametrize("what", ["store", "windows"])
def test_a_killed_process_leaves_one_state_whole(done: tuple[dict[str, Any], str, Path], what: str) -> None:
    found = done[0][what]
    assert found["kills"] == KILLS
    assert found["interrupted"] > 0, "no process was killed at work: nothing was tried"


def test_a_full_disk_is_one_fault_and_the_older_store_stays(
    done: tuple[dict[str, Any], str, Path],
) -> None:
    result, warnings, folder = done
    fault = f"{folder}/store: cannot hold a store: File too large; give a writable folder with free space"
    assert result["full"] == [fault] * 5
    before, after = result["after"]
    assert before == after
    assert warnings.count("windows cannot be kept") == 5
    assert "Traceback" not in warnings


def test_nothing_is_left_lying_about(done: tuple[dict[str, Any], str, Path]) -> None:
    assert done[0]["left"] == [".lock", ".lock", "arrays", "store.json", "windows", "windows.json"]
