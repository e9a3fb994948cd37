"""How fast other frameworks do the work that a run of `hymate-simulate` did, in processes of their own."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ports import free_ports
from benchmarks.processor import Processor

Told = Sequence[dict[str, list[float]]]
"""Of each process, what `Work.tell` tells."""


@dataclass(frozen=True)
class Pace:
    """Of rounds after the first."""

    seconds: float
    cpu_s: float

    @staticmethod
    def of(ended: Sequence[float], used: Processor) -> Pace:
        rounds = len(ended) - 1
        return Pace((ended[-1] - ended[0]) / rounds, used.between(ended[0], ended[-1]) / rounds)

    @staticmethod
    def fastest(paces: Iterable[Pace]) -> Pace | None:
        """The least of each figure: other work on the machine only ever adds to one. None: of none."""
        found = list(paces)
        return Pace(min(pace.seconds for pace in found), min(pace.cpu_s for pace in found)) if found else None


def others(run: Path, options: argparse.Namespace) -> dict[str, Pace]:
    """Of those that are asked for, by name.

    `pfl`: in as many processes as there are workers, one simulation that they share; `pfl_one`: as it comes,
    in one process on as many threads; `pfl_apart`: as many processes, each with a simulation of its own.
    """
    workers = options.workers
    paces = {}
    if not options.no_flower:
        with Processor() as used:
            (told,) = _told(sys.executable, "flower", run, options.rounds, workers, [{}])
            paces["flower"] = Pace.of(told["ended"], used)
    if options.pfl:
        pfl = options.pfl, "pfl_research", run, options.rounds
        shared = _told(*pfl, 1, _ranks(workers))
        paces["pfl"] = Pace(_mean("ended", shared), workers * _mean("used", shared))
        one = _told(*pfl, workers, [{}])
        paces["pfl_one"] = Pace(_mean("ended", one), _mean("used", one))
        apart = _told(*pfl, 1, [{}] * workers)
        paces["pfl_apart"] = Pace(_mean("ended", apart) / workers, _mean("used", apart))
    return paces


def _ranks(count: int) -> list[dict[str, str]]:
    """Environments of pfl processes that share a simulation."""
    addresses = ",".join(f"localhost:{port}" for port in free_ports(count))
    quiet = "ignore::FutureWarning"  # pfl 0.6 sums up with a name that torch gives up
    return [
        {"PFL_WORKER_ADDRESSES": addresses, "PFL_WORKER_RANK": str(rank), "PYTHONWARNINGS": quiet}
        for rank in range(count)
    ]


def _mean(what: str, told: Told) -> float:
    """By how much what they counted until the end of each round grew in one, over rounds and processes."""
    return statistics.mean((one[what][-1] - one[what][0]) / (len(one[what]) - 1) for one in told)


def _told(
    python: str, module: str, run: Path, rounds: int, width: int, settings: Sequence[dict[str, str]]
) -> Told:
    """The same rounds in a process for each of `settings`, its environment.

    Args: width: workers of its own engine, or threads, that each has.
    """
    # Not as `__main__`: Ray's workers look the ClientApp's functions up where they were defined.
    code = f"from benchmarks.frameworks.{module} import main; main()"
    command = [python, "-c", code, str(run), str(rounds), str(width)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **own})
        for own in settings
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{module} ended with an error")
    return [json.loads(lines.splitlines()[-1]) for lines in said]
