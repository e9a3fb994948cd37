"""Keeps freed memory in the process, so that the next training step need not ask the system for it again."""

from __future__ import annotations

import ctypes
import math
import sys
import time

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
_LIMIT = 1 << 30
PAUSE_S = 60.0
"""Between two releases: what was handed back has to be asked for, and zeroed, again. With tasks of a fifth of
a second, a release every five seconds took a twentieth of all processor time."""
_last = -math.inf
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def reuse_memory() -> bool:
    """Let glibc keep arrays of up to 1 GiB for reuse once freed; True if it took effect.

    By default glibc maps each large array anew and hands it back when freed: every training step then
    has all its activations zeroed by the kernel, page by page, which can take longer than computing them.
    The price is that the process keeps its peak memory. Call once, before training. Without effect,
    and False, where the C library is another one.
    """
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_THRESHOLD, _LIMIT), mallopt(_TRIM_THRESHOLD, _LIMIT)])


def release_memory() -> bool:
    """Hand memory that is free but kept back to the system; True if some was. Call between tasks.

    Does so at most once in `PAUSE_S`: short tasks would otherwise spend a fifth of their time on pages
    that the one before has just given back.
    """
    global _last  # noqa: PLW0603 (as much the process's own as its heap)
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is None or time.monotonic() < _last + PAUSE_S:
        return False
    _last = time.monotonic()
    return bool(trim(0))
