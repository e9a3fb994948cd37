"""Keeps freed memory in the process, so that the next training step need not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
_LIMIT = 1 << 30


def reuse_memory() -> bool:
    """Let glibc keep arrays of up to 1 GiB for reuse once freed; True if it took effect.

    By default glibc maps each large array anew and hands it back when freed: every training step then
    has all its activations zeroed by the kernel, page by page, which can take longer than computing them.
    The price is that the process keeps its peak memory. Call once, before training. Without effect,
    and False, where the C library is another one.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_THRESHOLD, _LIMIT), mallopt(_TRIM_THRESHOLD, _LIMIT)])


def release_memory() -> bool:
    """Hand memory that is free but kept back to the system; True if some was. Call between tasks."""
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
