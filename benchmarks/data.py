"""From a MEDS data set to batches: how long does a site take, and how much memory?

    python -m benchmarks.data                      # a table
    python -m benchmarks.data --json               # one JSON object
    python -m benchmarks.data --stays 2000 --triplets 1000000

An invented data set (`benchmarks.invented`) is written to a temporary folder; what is measured runs in
processes of its own, as a site's answers to the coordinator do, and the fastest repetition counts.

`prepare_s` is all that lies between the data set on disk and a store that training opens: the data set's
fingerprint, reading, cutting and keeping the windows, statistics, encoding, writing (`client.queries`:
describe, statistics, prepare). `prepare_peak_gib` is the largest memory of that process, Python and its
libraries included. `uncached_prepare_s` is the same with the kept windows deleted before each question.
On a busy machine read the `*_cpu_s` figures: processor time, of all threads.
`open_ms` is the first opening of the store in a fresh process whose modules are loaded, files in the page
cache; `message_ms` is what every training message pays: the fingerprint's look at the data set, and the
store. `iterate_triplets_per_s_per_core` is the slowest kind of epoch, without a model, in one thread,
counting the triplets that the batches hold.

There is no peer in the table: meds-torch-data needs other releases of packages that are pinned here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.apart import apart, peak_gib
from benchmarks.invented import TASK, write_invented
from benchmarks.stopwatch import Clocks, clocks, stopwatch
from hymate.config import PretrainConfig, TaskConfig, VocabularyConfig

Figures = dict[str, Any]

OPENINGS = 5
GOALS = {
    "prepare_s": ("at most", 60.0),
    "prepare_peak_gib": ("at most", 2.0),
    "open_ms": ("at most", 20.0),
    "iterate_triplets_per_s_per_core": ("at least", 200_000.0),
}


def answer_all(root: Path, cache: Path, keep_windows: bool) -> Figures:
    """A site's first three answers, from nothing: seconds of each and of their parts, peak memory."""
    from client import agreed, queries
    from client.site import SiteConfig
    from hymate.data import encoding
    from hymate.data.meds import MedsDataset
    from hymate.data.statistics import SiteStatistics
    from hymate.data.vocabulary import build_vocabulary
    from hymate.joining_protocol import DescribeRequest, PrepareRequest, StatisticsRequest

    shutil.rmtree(cache, ignore_errors=True)
    site, task = SiteConfig(name="site", data=root, cache=cache), TaskConfig(name=TASK)
    seconds: dict[str, Clocks] = {}

    def ask(name: str, question: Callable[[], Any]) -> Any:
        for kept in () if keep_windows else cache.glob("windows-*"):
            shutil.rmtree(kept)
        began = clocks()
        reply = question()
        seconds[name] = clocks() - began
        return reply

    places: dict[str, tuple[object, str]] = {
        "fingerprint": (agreed, "fingerprint"),
        "read": (MedsDataset, "events"),
        "cut": (queries, "cut_windows"),
        "keep": (queries, "kept_windows"),
        "statistics": (queries, "code_statistics"),
        "encode": (encoding, "encode"),
        "write": (queries, "prepare_store"),
    }
    with stopwatch(places) as parts:
        ask("describe", lambda: queries.describe(site, DescribeRequest(task=task)))
        sent = ask("statistics", lambda: queries.statistics(site, StatisticsRequest(task=task)))
        statistics = SiteStatistics.from_json(sent.statistics)
        vocabulary = build_vocabulary({"site": statistics}, VocabularyConfig())
        request = PrepareRequest(task=task, vocabulary=vocabulary.to_json(), vocabulary_hash=vocabulary.hash)
        ask("store", lambda: queries.prepare(site, request))
    store = agreed.agreed_store(site, task, vocabulary.hash)
    return {
        "prepare_s": sum(float(wall) for wall, _ in seconds.values()),
        "prepare_cpu_s": sum(float(cpu) for _, cpu in seconds.values()),
        "prepare_peak_gib": peak_gib(),
        **{f"{name}_s": float(wall) for name, (wall, _) in seconds.items()},
        "parts_s": {name: float(parts[name][0]) for name in places},
        "parts_cpu_s": {name: float(parts[name][1]) for name in places},
        "vocabulary_hash": vocabulary.hash,
        "stays": len(store),
        "triplets": store.header.triplets,
        "store_mib": sum(file.stat().st_size for file in store.path.rglob("*.npy")) / 2**20,
    }


def open_once(root: Path, cache: Path, vocabulary_hash: str) -> Figures:
    """Milliseconds to open the store, and to do what every training message does before it trains."""
    from client import agreed
    from client.site import SiteConfig
    from hymate.data.store import open_store

    site, task = SiteConfig(name="site", data=root, cache=cache), TaskConfig(name=TASK)
    path = agreed.store_path(site, task, vocabulary_hash)
    dataset = json.loads((path / "store.json").read_text(encoding="utf-8"))["dataset"]
    began = clocks()
    open_store(path, dataset=dataset, vocabulary_hash=vocabulary_hash, task=task)
    opened = clocks()
    agreed.agreed_store(site, task, vocabulary_hash)
    open_ms, message_ms = (opened - began) * 1e3, (clocks() - opened) * 1e3
    return {
        "open_ms": float(open_ms[0]),
        "open_cpu_ms": float(open_ms[1]),
        "message_ms": float(message_ms[0]),
        "message_cpu_ms": float(message_ms[1]),
    }


def iterate(root: Path, cache: Path, vocabulary_hash: str, repetitions: int) -> Figures:
    """Triplets per second of each kind of epoch over the training stays, and the share of padding."""
    import torch

    from client import agreed
    from client.site import SiteConfig
    from hymate.data.batching import evaluation_batches, training_batches
    from hymate.data.forecasting import forecast_batches

    torch.set_num_threads(1)
    site, task = SiteConfig(name="site", data=root, cache=cache), TaskConfig(name=TASK)
    store = agreed.agreed_store(site, task, vocabulary_hash)
    rows, rng = store.rows("train"), np.random.default_rng(0)
    kinds: dict[str, Callable[[], Iterator[Any]]] = {
        "pretrain": lambda: (batch.input for batch in forecast_batches(store, rows, PretrainConfig(), rng)),
        "finetune": lambda: training_batches(store, rows, 32, rng, 0.0),
        "finetune_hidden": lambda: training_batches(store, rows, 32, rng, 0.2),
        "evaluate": lambda: evaluation_batches(store, rows, 64),
    }
    rate, waste = {}, {}
    for name, epoch in kinds.items():
        rate[name] = 0.0
        for _ in range(repetitions):
            seen = padded = 0
            began = time.perf_counter()
            for batch in epoch():
                seen += int(batch.mask.sum())
                padded += batch.mask.numel()
            rate[name] = max(rate[name], seen / (time.perf_counter() - began))
            waste[name] = 1.0 - seen / padded
    return {
        "iterate_triplets_per_s_per_core": min(rate.values()),
        "epochs_triplets_per_s": rate,
        "padding_waste": waste,
    }


def make(root: Path, stays: int, triplets: int) -> Figures:
    """Write the data set."""
    began = time.perf_counter()
    write_invented(root, stays, triplets)
    size = sum(file.stat().st_size for file in root.rglob("*.parquet"))
    return {"make_s": time.perf_counter() - began, "dataset_mib": size / 2**20}


def measure(stays: int, triplets: int, repetitions: int, folder: Path) -> Figures:
    """Everything this benchmark reports."""
    root, cache = folder / "meds", folder / "cache"
    made = apart(make, root, stays, triplets)
    runs = []
    uncached = []
    for _ in range(repetitions):  # turns are taken: what else the machine does weighs on both alike
        uncached.append(apart(answer_all, root, cache, False))
        runs.append(apart(answer_all, root, cache, True))
    prepared = min(runs, key=lambda run: run["prepare_s"])
    vocabulary_hash = prepared.pop("vocabulary_hash")
    opened = [apart(open_once, root, cache, vocabulary_hash) for _ in range(OPENINGS)]
    return {
        **prepared,
        "prepare_peak_gib": max(run["prepare_peak_gib"] for run in runs),
        **{f"uncached_{name}": min(run[name] for run in uncached) for name in ("prepare_s", "prepare_cpu_s")},
        **{name: min(run[name] for run in opened) for name in opened[0]},
        **apart(iterate, root, cache, vocabulary_hash, repetitions),
        **made,
    }


def table(result: Figures) -> str:
    """The result for reading."""
    kinds = result["epochs_triplets_per_s"]
    rows = [
        f"{result['triplets']:,} triplets of {result['stays']:,} stays; "
        f"data set {result['dataset_mib']:.0f} MiB, store {result['store_mib']:.0f} MiB",
        "",
        *(f"{name:34}{result[name]:>16,.4g}   {word} {goal:,.4g}" for name, (word, goal) in GOALS.items()),
        "",
        f"{'seconds':20}{'wall':>10}{'processor':>12}",
        *(
            f"{label:20}{result[f'{name}_s']:>10.2f}{result[f'{name}_cpu_s']:>12.2f}"
            for label, name in (("windows cut once", "prepare"), ("for every question", "uncached_prepare"))
        ),
        "of the first of these",
        *(
            f"    {name:16}{seconds:>10.2f}{result['parts_cpu_s'][name]:>12.2f}"
            for name, seconds in result["parts_s"].items()
        ),
        f"answers: describe {result['describe_s']:.2f}, statistics {result['statistics_s']:.2f}, "
        f"store {result['store_s']:.2f}",
        "",
        f"{'milliseconds':20}{'wall':>10}{'processor':>12}",
        *(
            f"{label:20}{result[f'{name}_ms']:>10.1f}{result[f'{name}_cpu_ms']:>12.1f}"
            for label, name in (("open the store", "open"), ("each message", "message"))
        ),
        "",
        f"{'epoch, one thread':20}{'triplets/s':>14}{'padding':>10}",
        *(f"{name:20}{rate:>14,.0f}{result['padding_waste'][name]:>10.3f}" for name, rate in kinds.items()),
    ]
    return "\n".join(rows)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stays", type=int, default=20_000)
    parser.add_argument("--triplets", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes; default: the system's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hymate-data-", dir=options.folder) as folder:
        result = measure(options.stays, options.triplets, options.repetitions, Path(folder))
    print(json.dumps(result) if options.json else table(result))


if __name__ == "__main__":
    main()
