"""How fast many hospitals are simulated, and what that takes: beside Flower's own engine and pfl-research.

    python -m benchmarks.simulation [--sites 4 32 128 512] [--rounds 5] [--turns 3] [--pfl PYTHON] [--json]

Every framework does the same work (`benchmarks.frameworks.work`) on the same stores, in turns:
`hymate-simulate`, which besides keeps every hospital's count of rounds and journal on disk, checks what comes
back and checkpoints each round; Flower's FedAvg as in its quickstart, on as many workers; pfl-research in as
many processes, which share the hospitals as its guide says
(https://apple.github.io/pfl-research/guides/simulation_distributed.html). Beside that stand pfl as it comes,
in one process on as many threads (`pfl_one`), and as many of its processes with a whole simulation each, of
which none ever waits for another (`pfl_apart`): what a core does at best.
`--pfl` names a Python that has pfl 0.6 and this project: pfl wants an older dp-accounting than ours, so it
has its own environment.

Rounds count from the second on, and of each framework its fastest turn. Beside each ratio of rounds a minute
stands that of processor time for a round: other work on the machine moves the one, and hardly the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.frameworks.pace import Pace, others
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
    driver_peak_gib: float
    total_peak_gib: float
    """Proportional set size of all processes: memory that several share counts once."""
    start_s: float
    """From the command's start to the first request to a hospital."""
    whole_s: float
    """From the command's start to its end."""
    ratio_vs_flower: float | None = None
    cpu_ratio_vs_flower: float | None = None
    ratio_vs_pfl: float | None = None
    cpu_ratio_vs_pfl: float | None = None
    ratio_vs_pfl_one: float | None = None
    cpu_ratio_vs_pfl_one: float | None = None
    ratio_vs_pfl_apart: float | None = None
    cpu_ratio_vs_pfl_apart: float | None = None


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
class Turn:
    """Every framework once, on the same hospitals."""

    ours: Pace
    training_s: float
    """Of a round, all hospitals together."""
    others: dict[str, Pace]
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
    ratios = {
        f"{kind}_vs_{name}": getattr(pace, what) / getattr(ours, what)
        for name in turns[0].others
        if (pace := Pace.fastest(turn.others[name] for turn in turns))
        for kind, what in (("ratio", "seconds"), ("cpu_ratio", "cpu_s"))
    }
    return Figures(
        sites=sites,
        rounds_per_min=60 / ours.seconds,
        overhead_share=1 - fastest.training_s / (ours.seconds * options.workers),
        cpu_share=fastest.ours.cpu_s / ours.seconds / (psutil.cpu_count() or 1),
        cpu_s_per_round=ours.cpu_s,
        driver_peak_gib=max(turn.driver_peak for turn in turns) / GIB,
        total_peak_gib=max(turn.total_peak for turn in turns) / GIB,
        start_s=min(turn.start_s for turn in turns),
        whole_s=fastest.whole_s,
        **ratios,
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
        others=others(run, options),
        driver_peak=memory.driver,
        total_peak=memory.total,
        start_s=next(line["time"] for line in lines if line["event"] == "asked") - began,
        whole_s=whole,
    )
    shutil.rmtree(run)
    return turn


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
