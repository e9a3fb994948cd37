"""How fast many hospitals are simulated, and what that takes: beside Flower's own engine and pfl-research.

    python -m benchmarks.simulation [--sites 4 32 128 512] [--rounds 5] [--turns 3] [--pfl PYTHON] [--json]

Every framework does the same work (`benchmarks.frameworks.work`) on the same stores, in turns:
`hymate-simulate`, which besides keeps every hospital's count of rounds and journal on disk, checks what comes
back and checkpoints each round; Flower's FedAvg as in its quickstart, on as many workers; pfl-research in as
many processes as there are workers, twice: once *together*, its own way of sharing one simulation out
(https://apple.github.io/pfl-research/guides/simulation_distributed.html), once *apart*, each with a whole
simulation of its own, where none ever waits for another: what a core does at best.
`--pfl` names a Python that has pfl 0.6 and this project: pfl wants an older dp-accounting than ours, so it
has its own environment.

Rounds count from the second on, and of each framework its fastest turn. Beside each ratio of rounds a minute
stands that of processor time for a round: other work on the machine moves the one, and hardly the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.ports import free_ports
from benchmarks.processor import Processor
from hymate.data.synthetic import Cohort, SyntheticConfig, write_cohort

GIB = 2**30
LOOK_S = 2.0
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Figures:
    """One number of hospitals. Ratios above 1: `hymate-simulate` is faster."""

    sites: int
    rounds_per_min: float
    overhead_share: float
    """Of the workers' time in rounds, what was not training."""
    cpu_share: float
    """Of the machine's cores."""
    cpu_s_per_round: float
    ratio_vs_flower: float | None
    cpu_ratio_vs_flower: float | None
    ratio_vs_pfl: float | None
    """Against one simulation that the pfl processes share."""
    cpu_ratio_vs_pfl: float | None
    ratio_vs_pfl_apart: float | None
    """What a core does: against pfl processes with a simulation each, whose rounds count together."""
    cpu_ratio_vs_pfl_apart: float | None
    driver_peak_gib: float
    total_peak_gib: float
    """Proportional set size of all processes: memory that several share counts once."""
    start_s: float
    """From the command's start to the first request to a hospital."""
    whole_s: float
    """From the command's start to its end."""


class Memory:
    """Peaks of a process and of all below it, while the `with` block lasts."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.driver = self.total = 0

    def __enter__(self) -> Memory:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            with contextlib.suppress(psutil.Error):
                self.driver = max(self.driver, _own(self._process))
                family = [self._process, *self._process.children(recursive=True)]
                self.total = max(self.total, sum(map(_own, family)))


def _own(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


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


@dataclass(frozen=True)
class Turn:
    """Every framework once, on the same hospitals."""

    ours: Pace
    training_s: float
    """Of a round, all hospitals together."""
    flower: Pace | None
    pfl: Pace | None
    pfl_apart: Pace | None
    driver_peak: int
    total_peak: int
    start_s: float
    whole_s: float


def measure(sites: int, options: argparse.Namespace, folder: Path) -> Figures:
    """One number of hospitals under all frameworks, in turns; of each its fastest turn."""
    cohort = folder / f"cohort-{sites}"
    write_cohort(Cohort(SyntheticConfig(hospitals=sites, stays=options.stays)), cohort)
    study = {
        "name": f"bench-{sites}",
        "strategy": {"optimiser_state": "reset"},  # as in the others
        "pretrain": {"rounds": 0},
        "finetune": {"rounds": options.rounds, "batch_size": 32, "patience": options.rounds},
        "simulation": {
            "sites": {path.name: str(path) for path in sorted(cohort.glob("hospital_*"))},
            "workers": options.workers,
            "min_cell": 1,
        },
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    turns = [take_turn(folder / "study.yaml", folder / f"run-{sites}", options) for _ in range(options.turns)]
    shutil.rmtree(cohort)
    fastest = min(turns, key=lambda turn: turn.ours.seconds)
    ours = Pace.fastest(turn.ours for turn in turns)
    assert ours is not None
    others = {
        name: Pace.fastest(pace for turn in turns if (pace := getattr(turn, name)))
        for name in ("flower", "pfl", "pfl_apart")
    }
    ratios = {
        f"{kind}_vs_{name}": getattr(pace, what) / getattr(ours, what) if pace else None
        for name, pace in others.items()
        for kind, what in (("ratio", "seconds"), ("cpu_ratio", "cpu_s"))
    }
    return Figures(
        sites=sites,
        rounds_per_min=60 / ours.seconds,
        overhead_share=1 - fastest.training_s / (ours.seconds * options.workers),
        cpu_share=fastest.ours.cpu_s / ours.seconds / (psutil.cpu_count() or 1),
        cpu_s_per_round=ours.cpu_s,
        **ratios,
        driver_peak_gib=max(turn.driver_peak for turn in turns) / GIB,
        total_peak_gib=max(turn.total_peak for turn in turns) / GIB,
        start_s=min(turn.start_s for turn in turns),
        whole_s=fastest.whole_s,
    )


def take_turn(study: Path, run: Path, options: argparse.Namespace) -> Turn:
    """`hymate-simulate`, then the others on the stores that it left."""
    began = time.time()
    with Processor() as used:
        command = [BIN / "hymate-simulate", "--config", study, "--out", run]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
        with Memory(process.pid) as memory:
            if process.wait():
                raise SystemExit(f"hymate-simulate ended with code {process.returncode}; see {run}")
        whole = time.time() - began
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rounds = [line for line in lines if (line["phase"], line["event"]) == ("finetune", "round")]
        ours = Pace.of([line["time"] for line in rounds], used)
    turn = Turn(
        ours=ours,
        training_s=statistics.mean(line["training_s"] for line in rounds[1:]),
        flower=None if options.no_flower else flower_pace(run, options),
        pfl=pfl_pace(run, options) if options.pfl else None,
        pfl_apart=pfl_apart_pace(run, options) if options.pfl else None,
        driver_peak=memory.driver,
        total_peak=memory.total,
        start_s=next(line["time"] for line in lines if line["event"] == "asked") - began,
        whole_s=whole,
    )
    shutil.rmtree(run)
    return turn


def flower_pace(run: Path, options: argparse.Namespace) -> Pace:
    """Of the same rounds on Flower's own engine."""
    with Processor() as used:
        (told,) = framework(sys.executable, "flower", run, options, [{}])
        return Pace.of(told["ended"], used)


def pfl_pace(run: Path, options: argparse.Namespace) -> Pace:
    """Of the same rounds in pfl processes that share the hospitals out and add their sums up."""
    addresses = ",".join(f"localhost:{port}" for port in free_ports(options.workers))
    ranks = [
        {"PFL_WORKER_ADDRESSES": addresses, "PFL_WORKER_RANK": str(rank)} for rank in range(options.workers)
    ]
    told = framework(options.pfl, "pfl_research", run, options, ranks)
    return Pace(_mean("ended", told), options.workers * _mean("used", told))


def pfl_apart_pace(run: Path, options: argparse.Namespace) -> Pace:
    """Of the same rounds, of which each pfl process does all by itself."""
    told = framework(options.pfl, "pfl_research", run, options, [{}] * options.workers)
    return Pace(_mean("ended", told) / options.workers, _mean("used", told))


def _mean(what: str, told: list[dict[str, list[float]]]) -> float:
    """Of a round, over the processes: of what they count, how much more it was at each round's end."""
    return statistics.mean((one[what][-1] - one[what][0]) / (len(one[what]) - 1) for one in told)


def framework(
    python: str, module: str, run: Path, options: argparse.Namespace, settings: Sequence[dict[str, str]]
) -> list[dict[str, list[float]]]:
    """The same rounds elsewhere, in a process for each of the `settings` of its environment: what each tells
    (`Work.tell`)."""
    words = [str(run), str(options.rounds), str(options.workers)]
    # Not as `__main__`: Ray's workers look the ClientApp's functions up where they were defined.
    command = [python, "-c", f"from benchmarks.frameworks.{module} import main; main()", *words]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **own})
        for own in settings
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{module} ended with an error")
    return [json.loads(lines.splitlines()[-1]) for lines in said]


def all_figures(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record for each number of hospitals."""
    with tempfile.TemporaryDirectory(prefix="bench-simulation-") as folder:
        for sites in options.sites:
            yield {
                key: round(value, 3) if isinstance(value, float) else value
                for key, value in asdict(measure(sites, options, Path(folder))).items()
            }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[4, 32, 128, 512])
    parser.add_argument("--rounds", type=int, default=5, help="at least 2: the first is not counted")
    parser.add_argument("--turns", type=int, default=1, help="of each framework; the fastest counts")
    parser.add_argument("--stays", type=int, default=200, help="of each hospital")
    parser.add_argument("--workers", type=int, default=psutil.cpu_count())
    parser.add_argument("--pfl", help="a Python that has pfl 0.6 and this project")
    parser.add_argument(
        "--no-flower", action="store_true", help="its time grows with the square of the hospitals"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON for each number of hospitals")
    options = parser.parse_args(arguments)
    for record in all_figures(options):
        words = ", ".join(f"{key} {value}" for key, value in record.items())
        print(json.dumps(record) if options.json else words, flush=True)


if __name__ == "__main__":
    main()
