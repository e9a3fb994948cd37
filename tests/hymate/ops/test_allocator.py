"""Memory: kept while training, given back between tasks."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import torch
from hymate.ops.allocator import release_memory, reuse_memory

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))

assert reuse_memory()
before = resident()
blocks = [torch.ones(2**18) for _ in range(400)]  # 1 MiB each
last = torch.ones(2**18)  # above them all: the heap cannot shrink from its end
del blocks
kept = resident() - before
release_memory()
print(kept, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_memory_is_kept_for_reuse_and_released_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 350
    assert left < 50
