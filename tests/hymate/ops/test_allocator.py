"""Memory: kept while training, given back between tasks."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import torch
from hymate.ops import allocator

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))

def fill():
    blocks = [torch.ones(2**18) for _ in range(400)]  # 1 MiB each
    last = torch.ones(2**18)  # above them all: the heap cannot shrink from its end
    return last

assert allocator.reuse_memory()
before = resident()
last = fill()
kept = resident() - before
allocator.release_memory()
left = resident() - before
again = fill()
assert not allocator.release_memory()
soon = resident() - before
allocator.PAUSE_S = 0.0
allocator.release_memory()
print(kept, left, soon, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_memory_is_kept_for_reuse_and_released_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, left, soon, later = map(int, done.stdout.split())
    assert kept > 350
    assert left < 50
    assert soon > 350  # a task so short does not pay for it
    assert later < 50
