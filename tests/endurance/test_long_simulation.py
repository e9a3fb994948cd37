"""Two hundred rounds of 32 hospitals: memory, file descriptors and disk stay what they were."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

ROUNDS, SITES = 200, 32
SETTLED = 50
"""Rounds after which everything has the size that it keeps."""
STUDY: dict[str, Any] = {
    "name": "endurance",
    "model": {"d_model": 16, "mamba_blocks": 1, "d_state": 4, "attention_heads": 2, "d_static": 4},
    "pretrain": {"rounds": 0},
    "finetune": {"rounds": ROUNDS, "batch_size": 32, "patience": ROUNDS},
    "simulation": {"synthetic": {"hospitals": SITES, "stays": 40}, "min_cell": 1},
}
PAGES = 2**20
"""Bytes of shared memory that are not looked into: Ray's is all but empty, and other programs have theirs."""
GROWING = ("*.jsonl", "tensorboard/*", "rounds.sqlite*", "simulation.log")
"""What the run directory says grows: a few lines for every site and round."""


def look(process: psutil.Process, run: Path) -> dict[str, float]:
    """Sizes as they are now, summed over the processes of a kind."""
    sizes: dict[str, float] = defaultdict(float)
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            words = " ".join(member.cmdline()[:2])
            kind = "workers" if "ray::" in words else "driver" if member == process else "ray"
            sizes[f"{kind} memory"] += member.memory_full_info().uss
            sizes[f"{kind} files"] += member.num_fds()
    with contextlib.suppress(FileNotFoundError):  # a file that was just replaced
        for path in run.rglob("*"):
            if path.is_file() and not any(path.match(pattern) for pattern in GROWING):
                sizes["disk"] += path.stat().st_size
    store = psutil.disk_usage("/dev/shm").used
    return {**sizes, "shared memory": store}


@pytest.mark.endurance
@pytest.mark.timeout(1800)
def test_nothing_grows_in_two_hundred_rounds(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    run = tmp_path / "run"
    temporary = Path(tempfile.mkdtemp(prefix="he-"))  # short: Ray's sockets lie below it
    process = subprocess.Popen(
        [sys.executable, "-m", "server.cli", "--config", str(tmp_path / "study.yaml"), "--out", str(run)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    series: list[tuple[int, dict[str, float]]] = []
    while process.poll() is None:
        done = rounds(run)
        if done >= SETTLED and (not series or done >= series[-1][0] + 5):
            series.append((done, look(psutil.Process(process.pid), run)))
        time.sleep(0.5)
    assert process.returncode == 0
    assert rounds(run) == ROUNDS
    assert len(series) > 20
    for name in series[0][1]:
        values = np.array([sizes.get(name, 0.0) for _, sizes in series])
        numbers = np.array([number for number, _ in series])
        slope = np.polyfit(numbers, values, 1)[0]
        size = max(values.mean(), PAGES if name == "shared memory" else 0.0)
        grown = slope * (ROUNDS - SETTLED) / size
        assert grown < 0.05, f"{name} grew by {grown:.1%} from {values[0]:.0f}"
    assert list(temporary.iterdir()) == []
    temporary.rmdir()


def rounds(run: Path) -> int:
    """Rounds that are complete."""
    path = run / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0].splitlines() if path.is_file() else []
    return sum(json.loads(line)["event"] == "round" for line in whole)
