"""What the commands that run experiments have in common."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Sequence

from hymate.errors import InputFault
from server.failure import StudyFailure


def exit_code(name: str, run: Callable[[], int]) -> int:
    """What `run` returns; 1 where a study ended early; 2 for a wrong input; 130 where stopped, by Ctrl-C or
    SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except InputFault as fault:
        print(f"{name}: {fault}", file=sys.stderr)
        return 2
    except StudyFailure as failure:
        print(f"{name}: a study ended early: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: stopped; the same command goes on", file=sys.stderr)
        return 130


def seeds(text: str) -> tuple[int, ...]:
    """
    >>> seeds("0,1,5")
    (0, 1, 5)
    """
    return tuple(int(seed) for seed in text.split(","))


def repeated(name: str, words: Sequence[str], of_seeds: Sequence[int] | None) -> str:
    """The command that a reader would repeat.

    >>> repeated("benchmarks.strategies", ["--reduced"], (0, 1))
    'python -m benchmarks.strategies --reduced --seeds 0,1'
    """
    chosen = ["--seeds", ",".join(map(str, of_seeds))] if of_seeds else []
    return shlex.join(["python", "-m", name, *words, *chosen])
