"""How fast is a whole training step of HyMaTE, against what this machine can multiply?

    python -m benchmarks.train_step                       # a table
    python -m benchmarks.train_step --json                # one JSON object
    HYMATE_PHYSIONET2012=DIR python -m benchmarks.train_step   # real stays instead of random ones

A step is everything: cutting the batch out of the store, forward, loss, backward, clipping, AdamW. What
it must multiply and add is counted from the model and the stays' real lengths, padding not included:
twice as much backward as forward, nothing for what a kernel computes again. The machine's rate is that
of `torch.mm` on square matrices in the same run; `utilisation` is the share of it that the step reaches.
Our own kernel for linear layers can be faster than `torch.mm`, where that does not use the processor's
widest vectors; `utilisation_of_fastest` is the share of the faster of the two.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.stays import store_of
from hymate.config import FinetuneConfig, ModelConfig
from hymate.data.batching import training_batches
from hymate.data.store import TripletStore
from hymate.model.attention import SelfAttention
from hymate.model.hymate import HyMaTE, build_model
from hymate.model.mamba import Mamba
from hymate.ops.allocator import reuse_memory
from hymate.ops.linear import linear
from hymate.ops.selective_scan import describe_backend
from hymate.train.loop import finetune_epochs, make_optimiser
from hymate.train.scoring import labelled

EPOCH = 6400  # stays, PhysioNet-2012's training split is of that order


def forward_multiply_adds(model: HyMaTE, lengths: NDArray[np.int64]) -> int:
    """Multiplications with addition of one forward pass over stays of these lengths."""
    tokens, pairs = int(lengths.sum()), int((lengths**2).sum())
    if (window := model.config.attention_window) is not None:
        pairs = int((lengths * np.minimum(lengths, 2 * window + 1)).sum())
    once_a_stay = {
        id(module) for part in (model.static, model.classification_head) if part for module in part.modules()
    }
    total = 0
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.forecast_head.out:
            times = len(lengths) if id(module) in once_a_stay else tokens
            total += module.in_features * module.out_features * times
        elif isinstance(module, Mamba):
            width = module.conv1d.weight.shape[-1]
            # Of each state: decay times state, input times B, C times state; and the convolution.
            total += module.d_inner * (3 * module.d_state + width) * tokens
        elif isinstance(module, SelfAttention):
            total += 2 * module.qkv.in_features * pairs  # scores, weighted sum
    return total + model.config.d_model * tokens  # pooling


def rate(count: float, work: Callable[[], object], seconds: float = 0.3) -> float:
    """`count` per second, of the fastest repetition."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return count / best


class Clock:
    """Looks at the time where a pass starts, before each step's forward, and where the pass ends."""

    def __init__(self) -> None:
        self.stamps = [time.perf_counter()]

    def before_step(self, model: nn.Module) -> None:
        self.stamps.append(time.perf_counter())

    def on_gradient(self, model: nn.Module) -> None:
        """Not looked at."""

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Not looked at."""

    def after_epoch(self, model: nn.Module) -> None:
        self.stamps.append(time.perf_counter())


def measure(
    store: TripletStore, codes: int, static_width: int, stays: int, seconds: float
) -> dict[str, object]:
    """Everything this benchmark reports, from several passes over the same `stays` stays.

    The fastest repetition of each step counts: what else the machine does then weighs little.
    """
    config = FinetuneConfig()
    model = build_model(ModelConfig(), codes, static_width, 48.0, seed=0)
    optimiser = make_optimiser(model, config)
    rows = labelled(store, "train")
    lengths = store.lengths[rows]
    batches = [
        batch.mask
        for batch in training_batches(store, rows, config.batch_size, np.random.default_rng(0), 0.0)
    ]
    padded = sum(mask.numel() for mask in batches)

    chosen = np.random.default_rng(1).permutation(rows)[:stays]
    split = np.full_like(store.split, -1)
    split[chosen] = store.header.splits.index("train")
    some = replace(store, split=split)
    square, tall = torch.randn(1024, 1024), torch.randn(16384, 256)
    small = torch.randn(256, 256)
    passes: list[list[float]] = []
    matmul, own, end = 0.0, 0.0, time.perf_counter() + seconds
    while len(passes) < 3 or time.perf_counter() < end:
        matmul = max(matmul, rate(1024**3, lambda: square @ square))
        own = max(own, rate(16384 * 256**2, lambda: linear(tall, small)))
        clock = Clock()
        finetune_epochs(
            model,
            some,
            config,
            optimiser,
            positive_weight=6.0,
            seed=0,
            first_epoch=0,  # the same batches in each pass
            epochs=1,
            hook=clock,
        )
        passes.append(np.diff(clock.stamps).tolist())
    best = float(np.min(passes, axis=0).sum())
    seen = store.lengths[chosen]
    work = 3 * forward_multiply_adds(model, seen)
    return {
        "backend": describe_backend(),
        "threads": torch.get_num_threads(),
        "parameters": model.parameter_count,
        "batch_size": config.batch_size,
        "median_length": float(np.median(lengths)),
        "longest": int(lengths.max()),
        "padding_waste": 1 - int(lengths.sum()) / padded,
        "ms_per_step": best / (len(passes[0]) - 1) * 1e3,
        "stays_per_s": len(seen) / best,
        "tokens_per_s": int(seen.sum()) / best,
        "epoch_seconds": EPOCH * best / len(seen),
        "epoch_stays": EPOCH,
        "multiply_adds_per_token": work / int(seen.sum()),
        "multiply_adds_per_s": work / best,
        "matmul_multiply_adds_per_s": matmul,
        "own_linear_multiply_adds_per_s": own,
        "utilisation": work / best / matmul,
        "utilisation_of_fastest": work / best / max(matmul, own),
    }


def table(result: dict[str, object]) -> str:
    """The result for reading."""
    return "\n".join(
        f"{name:32}{value:.4g}" if isinstance(value, float) else f"{name:32}{value}"
        for name, value in result.items()
    )


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--physionet2012", type=Path, default=os.environ.get("HYMATE_PHYSIONET2012"))
    parser.add_argument("--stays", type=int, default=640, help="stays in one pass (default 640: 20 steps)")
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    parser.add_argument("--seconds", type=float, default=30.0, help="least time for the repetitions")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    reuse_memory()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(options.physionet2012) if options.physionet2012 else None
        store, vocabulary = store_of(raw, max(EPOCH, options.stays), Path(folder))
        result = measure(store, vocabulary.size, vocabulary.static_width, options.stays, options.seconds)
    result = {"stays": "random" if raw is None else "PhysioNet-2012", **result}
    print(json.dumps(result) if options.json else table(result))


if __name__ == "__main__":
    main()
