"""Run the paper's experiments, and collect them.

    python -m benchmarks.experiments all --reduced               # every table in minutes, on made-up data
    python -m benchmarks.experiments ablations --data RAW        # one table on PhysioNet-2012
    python -m benchmarks.experiments all --data RAW --write      # all of them, into docs/results.md
    python -m benchmarks.experiments baselines --data RAW --row GRU --row STraTS --seeds 0
    python -m benchmarks.experiments labels --data RAW --collect # the table of what has been run so far

A table is a file of deploy/configs/experiments. Every run is a `hymate train` in a process of its own, below
OUT/trainings; what is finished is not run again, and what was stopped goes on from its last complete round.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks.children import alone_in, duration
from benchmarks.command import exit_code, repeated, seeds
from benchmarks.experiments.files import FOLDER, TABLES, TableConfig, load_table
from benchmarks.experiments.places import RAW, lay_out_all, places
from benchmarks.experiments.report import RESULTS, section, write_section
from benchmarks.experiments.runner import Runner
from benchmarks.experiments.runs import Run, runs_of
from hymate.errors import InputFault

NAME = "benchmarks.experiments"


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 1 where a run failed; 2 for a wrong input; 130 where stopped."""
    options = _parser().parse_args(arguments)
    return exit_code(NAME, lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("table", metavar="TABLE", help=f"{', '.join(TABLES)}; or all")
    parser.add_argument("--reduced", action="store_true", help="few small runs on made-up data")
    parser.add_argument("--row", action="append", metavar="NAME", help="train this row only; may be repeated")
    parser.add_argument("--seeds", type=seeds, help="such as 0,1,2; default: the table's")
    raw = os.environ.get(RAW)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(raw) if raw else None,
        metavar="RAW",
        help=f"folder of PhysioNet-2012's files; default: {RAW}",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once; they share the cores")
    parser.add_argument("--collect", action="store_true", help="train nothing, show what is there")
    parser.add_argument("--write", action="store_true", help=f"also write into {RESULTS.name}")
    parser.add_argument("--configs", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    return parser


def _run(options: argparse.Namespace) -> int:
    names = TABLES if options.table == "all" else (options.table,)
    tables = {name: load_table(name, options.configs) for name in names}
    for row in options.row or ():
        if not any(row in table.rows for table in tables.values()):
            known = "; ".join(row for table in tables.values() for row in table.rows)
            raise InputFault(f"--row {row}", "no row of this name", f"there are {known}")
    runs = {name: _runs(table, options) for name, table in tables.items()}  # all files are read first
    began, failed = time.monotonic(), 0
    with alone_in(options.out):
        for name, table in tables.items():
            if not options.collect:
                lay_out_all(list(dict.fromkeys(run.place for run in runs[name])), options.out)
            failed += _one(name, table, runs[name], options)
    if not options.collect:
        print(f"\n{len(names)} tables in {duration(time.monotonic() - began)}")
    return 1 if failed else 0


def _runs(table: TableConfig, options: argparse.Namespace) -> list[Run]:
    reduced = options.reduced
    found = places(table.reduced.data if reduced else table.data, options.data)
    wanted = options.seeds or (table.reduced.seeds if reduced else table.seeds)
    return runs_of(table, found, wanted, options.out.resolve(), reduced=reduced, configs=options.configs)


def _one(name: str, table: TableConfig, runs: list[Run], options: argparse.Namespace) -> int:
    """Run one table and show it; returns how many runs failed."""
    faults: list[str] = []
    if not options.collect:
        wanted = [run for run in runs if not options.row or run.row in options.row]
        faults = Runner(name, wanted, options.jobs, lambda text: print(text, flush=True)).go().faults
    finished = []
    for run in runs:
        try:
            finished += [run] if run.state() == "finished" else []
        except InputFault as fault:
            line = f"{run.row}, {run.replicate}: {fault}"
            if line not in faults:
                faults.append(line)
                print(f"  failed: {line}")
    text = section(name, table, runs, finished, command=_command(name, options), reduced=options.reduced)
    print(f"\n{text}", flush=True)
    if options.write:
        write_section(f"{name}{'-reduced' if options.reduced else ''}", text, options.results)
        print(f"written: {options.results}")
    return len(faults)


def _command(name: str, options: argparse.Namespace) -> str:
    """As a reader would repeat it: without anybody's folders."""
    parts = [name, *(["--reduced"] if options.reduced else ["--data", "RAW"])]
    return repeated(NAME, parts, options.seeds)


if __name__ == "__main__":
    sys.exit(main())
