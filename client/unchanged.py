"""How a file looks from outside: a process that answers again and again reads it anew only when that changed.

A deployed site has a process for every message, and keeps nothing. A simulation's workers stay.
"""

from __future__ import annotations

from pathlib import Path

Look = tuple[int, ...]


def look(path: Path) -> Look:
    """Device, inode, size, and when it was written and changed (ns); empty where there is no such file."""
    try:
        seen = path.stat()
    except OSError:
        return ()
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
