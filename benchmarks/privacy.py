"""What does DP-SGD cost in time and memory, against the plain training step?

    python -m benchmarks.privacy                          # a table
    python -m benchmarks.privacy --json                   # one JSON object
    HYMATE_PHYSIONET2012=DIR python -m benchmarks.privacy # real stays instead of random ones

Both train HyMaTE on the same stays, batches of 32 (private: 32 expected, drawn by Poisson sampling), from
cutting the batch out of the store to AdamW. Times are per stay that took part, passes of all modes taken in
turn, the fastest repetition of each step; memory is what an epoch adds to a fresh process at its peak.
`opacus hooks` is a step as Opacus alone would take it, with our samplers and the whole batch at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer

from benchmarks.context import MIB, forget_peak, peak
from benchmarks.stays import store_of
from benchmarks.train_step import EPOCH, Clock
from hymate.config import FinetuneConfig, ModelConfig
from hymate.data.batching import collate
from hymate.data.store import TripletStore
from hymate.model.hymate import HyMaTE, build_model
from hymate.ops.allocator import reuse_memory
from hymate.ops.selective_scan import describe_backend
from hymate.train.loop import finetune_epochs, label_losses, make_optimiser
from hymate.train.poisson import Sampling, Subjects
from hymate.train.private import private_finetune_epochs
from hymate.train.private_optimiser import KINDS, Mechanism
from hymate.train.scoring import labelled

PLAIN, HOOKS = "plain", "opacus hooks"
MODES = (PLAIN, *KINDS, HOOKS)
KEY = bytes(32)
WEIGHT = 6.0

Epoch = Callable[[Clock], int]
"""One pass; how many stays took part."""


def epoch_of(mode: str, store: TripletStore, codes: int, config: FinetuneConfig) -> Epoch:
    """A pass over the training stays, the same ones each time it is called."""
    model = build_model(ModelConfig(), codes, store.static.shape[1], 48.0, seed=0)
    optimiser = make_optimiser(model, config)

    def plain(clock: Clock) -> int:
        return finetune_epochs(
            model,
            store,
            config,
            optimiser,
            positive_weight=WEIGHT,
            seed=0,
            first_epoch=0,
            epochs=1,
            hook=clock,
        ).stays

    def private(clock: Clock) -> int:
        return private_finetune_epochs(
            model,
            store,
            config,
            optimiser,
            Mechanism(1.0, 1.0, next(kind for kind in KINDS if kind == mode)),
            positive_weight=WEIGHT,
            key=KEY,
            first_epoch=0,
            epochs=1,
            hook=clock,
        ).visits

    def hooks(clock: Clock) -> int:
        return _opacus_alone(model, store, config, optimiser, clock)

    if mode == PLAIN:
        return plain
    return hooks if mode == HOOKS else private


def _opacus_alone(
    model: HyMaTE,
    store: TripletStore,
    config: FinetuneConfig,
    optimiser: torch.optim.Optimizer,
    clock: Clock,
) -> int:
    """An epoch with Opacus' hooks, and batches as a Poisson sampler gives them."""
    subjects = Subjects.of(store, labelled(store, "train"))
    sampling, rng, visits = Sampling.of(len(subjects), config.batch_size), np.random.default_rng(0), 0
    losses = label_losses(model, store, config, WEIGHT)
    model.forecast_head.requires_grad_(False)  # else Opacus misses gradients there
    model.train()
    hooks = GradSampleModule(model, loss_reduction="sum")
    private = DPOptimizer(
        optimiser, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=config.batch_size
    )
    try:
        for _ in range(sampling.steps):
            clock.before_step(model)
            private.zero_grad(set_to_none=True)
            rows = subjects.draw(sampling.rate, rng)
            losses(collate(store, rows)).sum().backward()  # type: ignore[no-untyped-call]
            private.step()
            visits += len(rows)
        clock.after_epoch(model)
    finally:
        hooks.cleanup()
        model.forecast_head.requires_grad_(True)
        for parameter in model.parameters():
            parameter.grad = None
            vars(parameter).pop("summed_grad", None)
    return visits


def seconds_per_stay(epochs: dict[str, Epoch], seconds: float) -> dict[str, float]:
    """Of each mode; at least three passes of each, taken in turn."""
    stays: dict[str, int] = {}
    passes: dict[str, list[list[float]]] = {mode: [] for mode in epochs}
    end = time.perf_counter() + seconds
    while len(passes[PLAIN]) < 3 or time.perf_counter() < end:
        for mode, epoch in epochs.items():
            clock = Clock()
            stays[mode] = epoch(clock)
            passes[mode].append(np.diff(clock.stamps).tolist())
    return {mode: float(np.min(passes[mode], axis=0).sum()) / stays[mode] for mode in epochs}


def added_memory(epoch: Epoch) -> float:
    """MiB that a pass adds to what the process holds, at its peak."""
    before = forget_peak()
    epoch(Clock())
    return (peak() - before) / MIB


def some_of(store: TripletStore, stays: int) -> TripletStore:
    """The store with `stays` of its labelled training stays, drawn at random, as the training split."""
    chosen = np.random.default_rng(1).permutation(labelled(store, "train"))[:stays]
    split = np.full_like(store.split, -1)
    split[chosen] = store.header.splits.index("train")
    return replace(store, split=split)


def ratios(values: dict[str, float]) -> dict[str, float]:
    """Of each private mode to plain."""
    return {mode: value / values[PLAIN] for mode, value in values.items() if mode != PLAIN}


def report(times: dict[str, float], memory: dict[str, float], batch_size: int) -> dict[str, object]:
    """What is printed."""
    private = [mode for mode in times if mode not in {PLAIN, HOOKS}]
    best = min(private, key=lambda mode: times[mode])
    return {
        "backend": describe_backend(),
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "ms_per_step": {mode: value * batch_size * 1e3 for mode, value in times.items()},
        "step_mib": memory,
        "step_time_ratio": ratios(times),
        "memory_ratio": ratios(memory),
        "best_mode": best,
        "best_step_time_ratio": times[best] / times[PLAIN],
        "best_memory_ratio": memory[best] / memory[PLAIN],
    }


def table(result: dict[str, object]) -> str:
    """The result for reading."""
    lines = [f"{name:28}{value}" for name, value in result.items() if not isinstance(value, dict)]
    columns = [name for name, value in result.items() if isinstance(value, dict)]
    lines.append(f"{'':16}" + "".join(f"{name:>18}" for name in columns))
    for mode in MODES:
        cells = [part.get(mode) if isinstance(part := result[name], dict) else None for name in columns]
        lines.append(f"{mode:16}" + "".join(f"{'-':>18}" if c is None else f"{c:18.3f}" for c in cells))
    return "\n".join(lines)


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--physionet2012", type=Path, default=os.environ.get("HYMATE_PHYSIONET2012"))
    parser.add_argument("--stays", type=int, default=320, help="stays in one pass (default 320: 10 steps)")
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    parser.add_argument("--seconds", type=float, default=60.0, help="least time for the repetitions")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--memory-of", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.threads:
        torch.set_num_threads(options.threads)
    reuse_memory()
    raw = Path(options.physionet2012) if options.physionet2012 else None
    config = FinetuneConfig()
    with tempfile.TemporaryDirectory() as folder:
        store, vocabulary = store_of(raw, EPOCH if raw else options.stays, Path(folder))
        some = some_of(store, options.stays)
        if options.memory_of:
            epoch_of(options.memory_of, some_of(store, 2), vocabulary.size, config)(Clock())  # first use
            print(added_memory(epoch_of(options.memory_of, some, vocabulary.size, config)))
            return
        epochs = {mode: epoch_of(mode, some, vocabulary.size, config) for mode in MODES}
        times = seconds_per_stay(epochs, options.seconds)
    memory = {mode: _memory_in_a_fresh_process(mode, options, raw) for mode in MODES}
    result = {
        "stays": "random" if raw is None else "PhysioNet-2012",
        **report(times, memory, config.batch_size),
    }
    print(json.dumps(result) if options.json else table(result))


def _memory_in_a_fresh_process(mode: str, options: argparse.Namespace, raw: Path | None) -> float:
    command = [sys.executable, "-m", "benchmarks.privacy", "--memory-of", mode, "--stays", str(options.stays)]
    command += ["--threads", str(options.threads)] if options.threads else []
    command += ["--physionet2012", str(raw)] if raw else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
