"""Run every strategy on uneven hospitals, and collect the tables of docs/strategies.md.

    python -m benchmarks.strategies --reduced                     # all of it in minutes, says nothing
    python -m benchmarks.strategies --population uneven           # one table, about a minute a run and core
    python -m benchmarks.strategies --row FedAvg --row pooled --seeds 0
    python -m benchmarks.strategies --jobs 4 --write              # all tables, into docs/strategies.md
    python -m benchmarks.strategies --collect                     # the tables of what has been run so far

Populations and rows stand in deploy/configs/experiments/strategies. A run is the product's own study
without its transport: what is finished is not run again, what was stopped goes on from its last round, and
all rows of a seed begin with the same pretraining. Every run is one process on one core.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.children import alone_in
from benchmarks.command import exit_code, repeated, seeds
from benchmarks.strategies.files import FOLDER, load_tables, population_of
from benchmarks.strategies.report import DOCS, section, write_section
from benchmarks.strategies.runner import Runner
from benchmarks.strategies.runs import Table, table_of
from hymate.errors import InputFault

NAME = "benchmarks.strategies"
RAW = "HYMATE_PHYSIONET2012"


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 1 where a run failed; 2 for a wrong input; 130 where stopped."""
    options = _parser().parse_args(arguments)
    return exit_code(NAME, lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--population",
        action="append",
        metavar="NAME",
        help=f"this table only; may be repeated. Default: all that can be run\n(physionet2012 needs {RAW})",
    )
    parser.add_argument("--row", action="append", metavar="NAME", help="run this row only; may be repeated")
    parser.add_argument("--seeds", type=seeds, help="such as 0,1; default: the population's")
    parser.add_argument("--reduced", action="store_true", help="few tiny runs: shows that it works")
    parser.add_argument("--out", type=Path, default=Path("runs/strategies"), help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one core each; default: 1")
    parser.add_argument("--collect", action="store_true", help="run nothing, show what is there")
    parser.add_argument("--write", action="store_true", help=f"also write into docs/{DOCS.name}")
    parser.add_argument("--configs", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    parser.add_argument("--docs", type=Path, default=DOCS, help=argparse.SUPPRESS)
    return parser


def _run(options: argparse.Namespace) -> int:
    found = load_tables(options.configs)
    if options.jobs < 1:
        raise InputFault("--jobs", f"{options.jobs} is no number of runs", "give 1 or more")
    names = options.population or [
        name
        for name in found.populations
        if name != "physionet2012" or options.reduced or os.environ.get(RAW)
    ]
    if not options.population and len(names) < len(found.populations):
        print(f"physionet2012 is left out: {RAW} is not set", file=sys.stderr)
    for name in names:
        population_of(found, name)
    known = {row for name in names for row in found.populations[name].rows}
    for row in options.row or ():
        if row not in known:
            raise InputFault(f"--row {row}", "no row of this name", f"there are {'; '.join(sorted(known))}")
    out = options.out.resolve()
    tables = [
        table_of(found, name, options.seeds, out, options.configs, reduced=options.reduced) for name in names
    ]
    failed = 0
    with alone_in(out):
        for table in tables:
            failed += _one(table, options)
    return 1 if failed else 0


def _one(table: Table, options: argparse.Namespace) -> int:
    """Run one table and show it; returns how many rows or runs failed."""
    faults = list(table.faults)
    for fault in faults:
        print(f"  failed: {fault}", flush=True)
    if not options.collect:
        faults += Runner(table, options.row or (), options.jobs, lambda text: print(text, flush=True)).go()
    text = section(table, _command(table.name, options))
    print(f"\n{text}", flush=True)
    if options.write:
        write_section(f"{table.name}{'-reduced' if options.reduced else ''}", text, options.docs)
        print(f"written: {options.docs}", flush=True)
    return len(faults)


def _command(name: str, options: argparse.Namespace) -> str:
    """As a reader would repeat it: without anybody's folders."""
    parts = ["--population", name, *(["--reduced"] if options.reduced else [])]
    return repeated(NAME, parts, options.seeds)


if __name__ == "__main__":
    sys.exit(main())
