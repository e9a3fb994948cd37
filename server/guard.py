"""Become another program that dies with its parent: `python -m server.guard PROGRAM ARGUMENTS...`.

A SuperLink must not outlive the command that started it, not even when that command is killed with
SIGKILL and cannot clean up. Linux delivers SIGTERM for us; elsewhere the program simply runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel was told
        sys.exit(1)
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
