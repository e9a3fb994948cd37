"""Do time and memory of a training step grow linearly with the number of observations?

    python -m benchmarks.context                    # a table
    python -m benchmarks.context --json             # one JSON object
    python -m benchmarks.context --lengths 1024 2048 --window 128

A batch of one stay, forward and backward, each length in a process of its own, so that its peak memory
is its own. Three parts are measured: the Mamba stack; the whole of HyMaTE with `attention_window`, its
optimiser included; the same with full attention, whose time grows with the square of the length. The
slopes are fitted to logarithms: 1 is linear. Memory is what a step adds to the process at its peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hymate.config import FinetuneConfig, ModelConfig
from hymate.data.batching import TripletBatch
from hymate.model.hymate import HyMaTE, build_model
from hymate.ops.allocator import reuse_memory
from hymate.train.loop import make_optimiser
from hymate.train.objectives import classification_loss

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
CODES, STATIC = 90, 10
PARTS = ("mamba", "window", "full")
MIB = 2**20


def one_stay(length: int) -> TripletBatch:
    """A stay of random observations."""
    draw = torch.Generator().manual_seed(0)
    return TripletBatch(
        time=(torch.rand(1, length, generator=draw) * 48).sort().values,
        code=torch.randint(1, CODES + 1, (1, length), generator=draw),
        value=torch.randn(1, length, generator=draw),
        mask=torch.ones(1, length, dtype=torch.bool),
        static=torch.randn(1, STATIC, generator=draw),
        label=torch.ones(1),
        row=torch.zeros(1, dtype=torch.int64),
    )


def mamba_step(model: HyMaTE, length: int) -> Callable[[], None]:
    """Forward and backward of the Mamba blocks alone."""
    x = torch.randn(1, length, model.config.d_model, requires_grad=True)
    dy = torch.randn(1, length, model.config.d_model)

    def step() -> None:
        y = x
        for block in model.mamba:
            y = block(y)
        torch.autograd.backward(y, dy)
        model.zero_grad()
        x.grad = None

    return step


def training_step(model: HyMaTE, length: int) -> Callable[[], None]:
    """Forward, loss, backward, clipping and AdamW of the whole model."""
    batch, config = one_stay(length), FinetuneConfig()
    optimiser = make_optimiser(model, config)

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(classification_loss(model.classify(batch), batch.label, 6.0).mean())
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimiser.step()

    return step


def measure_one(part: str, length: int, window: int, seconds: float) -> dict[str, float]:
    """Milliseconds of the fastest repetition, and the process's peak memory with and without the step."""
    config = ModelConfig(attention_window=window if part == "window" else None)
    model = build_model(config, CODES, STATIC, 48.0, seed=0)
    make_step = mamba_step if part == "mamba" else training_step
    make_step(model, 16)()  # what is loaded or built at first use belongs to no length
    step = make_step(model, length)
    before = forget_peak()
    step()
    highest = peak()
    best, repetitions, end = float("inf"), 0, time.perf_counter() + seconds
    while repetitions < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
        repetitions += 1
    return {"ms": best * 1e3, "peak_mib": highest / MIB, "step_mib": (highest - before) / MIB}


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


def forget_peak() -> int:
    """Let the peak start anew at what the process holds now; returns that, in bytes. Linux only."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak() -> int:
    """Most that the process has held since then, in bytes."""
    return _status("VmHWM")


def slope(lengths: list[int], values: list[float]) -> float:
    """Of a straight line through the logarithms."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def measure(
    lengths: list[int], window: int, seconds: float, longest_full: int, threads: int | None
) -> dict[str, object]:
    """Every part at every length, each in a fresh process."""
    result: dict[str, object] = {"lengths": lengths, "window": window}
    for part in PARTS:
        used = [length for length in lengths if part != "full" or length <= longest_full]
        found = []
        for length in used:
            arguments = ["--one", part, str(length), "--window", str(window), "--seconds", str(seconds)]
            arguments += ["--threads", str(threads)] if threads else []
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.context", *arguments],
                check=True,
                capture_output=True,
                text=True,
            )
            found.append(json.loads(done.stdout))
        for name in ("ms", "peak_mib", "step_mib"):
            result[f"{part}_{name}"] = [one[name] for one in found]
        if len(used) > 1:
            result[f"{part}_time_slope"] = slope(used, [one["ms"] for one in found])
            result[f"{part}_memory_slope"] = slope(used, [one["step_mib"] for one in found])
    return {**result, "threads": threads or torch.get_num_threads()}


def table(result: dict[str, object]) -> str:
    """The result for reading."""

    def numbers(name: str) -> list[float]:
        found = result.get(name, [])
        return found if isinstance(found, list) else []

    lines = [f"{result['threads']} threads; window {result['window']}; ms and MiB that a step adds"]
    lines.append(f"{'length':>8}" + "".join(f"{part + ' ms':>14}{'MiB':>10}" for part in PARTS))
    for at, length in enumerate(numbers("lengths")):
        line = f"{length:8}"
        for part in PARTS:
            times, sizes = numbers(f"{part}_ms"), numbers(f"{part}_step_mib")
            line += f"{times[at]:14.1f}{sizes[at]:10.1f}" if at < len(times) else f"{'-':>14}{'-':>10}"
        lines.append(line)
    slopes = (result.get(f"{part}_{kind}_slope") for part in PARTS for kind in ("time", "memory"))
    shown = [f"{one:.3f}" if isinstance(one, float) else "-" for one in slopes]
    lines.append(
        f"{'slope':>8}" + "".join(f"{one:>{14 if i % 2 == 0 else 10}}" for i, one in enumerate(shown))
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--longest-full", type=int, default=8192, help="no full attention beyond this length")
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    parser.add_argument("--seconds", type=float, default=3.0, help="least time for each length's repetitions")
    parser.add_argument("--one", nargs=2, metavar=("PART", "LENGTH"), help="one part at one length, as JSON")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.one:
        if options.threads:
            torch.set_num_threads(options.threads)
        reuse_memory()
        part, length = options.one[0], int(options.one[1])
        print(json.dumps(measure_one(part, length, options.window, options.seconds)))
        return
    result = measure(options.lengths, options.window, options.seconds, options.longest_full, options.threads)
    print(json.dumps(result) if options.json else table(result))


if __name__ == "__main__":
    main()
