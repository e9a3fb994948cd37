"""What `benchmarks.simulation` measures with."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import fields

import pytest

from benchmarks import simulation
from benchmarks.frameworks.pace import Pace
from benchmarks.processor import Processor
from benchmarks.simulation import GIB, Figures, Memory

TOLD = """
sites rounds_per_min overhead_share ratio_vs_flower ratio_vs_pfl driver_peak_gib total_peak_gib start_s
"""
GROW = """
import subprocess, sys
if len(sys.argv) > 1:
    block = bytes(1) * (300 << 20)
    print("there", flush=True)
    sys.stdin.read()
else:
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], "child"])
"""


def test_every_figure_has_its_key() -> None:
    assert set(TOLD.split()) <= {field.name for field in fields(Figures)}


def test_the_first_round_is_not_counted() -> None:
    used = Processor(seen=[(0.0, 0.0), (10.0, 5.0), (30.0, 9.0), (40.0, 11.0)])
    assert Pace.of([10.0, 30.0, 40.0], used) == Pace(seconds=15.0, cpu_s=3.0)
    assert used.between(20.0, 35.0) == 3.0  # a round begins and ends between two looks


def test_of_several_turns_the_least_of_each_figure_counts() -> None:
    assert Pace.fastest([Pace(3.0, 4.0), Pace(2.0, 5.0)]) == Pace(2.0, 4.0)
    assert Pace.fastest([]) is None


def test_memory_of_all_processes_below_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "LOOK_S", 0.05)
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", GROW], stdin=pipe, stdout=pipe, text=True)
    with Memory(process.pid) as memory:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        deadline = time.monotonic() + 30
        while memory.total < 0.25 * GIB:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    process.communicate()
    assert 0 < memory.driver < 0.1 * GIB
