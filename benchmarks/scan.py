"""How fast is the selective scan, against its peers and against this machine?

    python -m benchmarks.scan                      # a table
    python -m benchmarks.scan --json               # one JSON object
    python -m benchmarks.scan --batch 1 --length 8192

Peers are measured in the same run, their repetitions interleaved with ours, and the fastest repetition
of each counts: what else the machine does at the time then weighs on all alike. Each scan runs twice, in a
process of its own each time: as it comes, and with freed memory kept for reuse, as this package's training
does (`hymate.ops.allocator.reuse_memory`). `native_ms` is ours as the package runs it, `mambapy_ms` mambapy
as it comes; the `*_reuse_ms` and `*_plain_ms` figures compare both on equal terms.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch
import torch.nn.functional as F
from torch import Tensor

from hymate.ops import backend
from hymate.ops.allocator import reuse_memory
from hymate.ops.scan_torch import selective_scan_torch
from hymate.ops.selective_scan import describe_backend, selective_scan

Scan = Callable[..., Tensor]


@dataclass(frozen=True)
class Shape:
    """(batch, length, channels, state) of one scan."""

    batch: int
    length: int
    channels: int
    state: int


def make_inputs(shape: Shape) -> dict[str, Tensor]:
    """Random inputs as a Mamba block produces them, gate, skip, bias and softplus included."""
    generator = torch.Generator().manual_seed(0)
    wide = (shape.batch, shape.length, shape.channels)
    narrow = (shape.batch, shape.length, shape.state)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    rates = torch.arange(1.0, shape.state + 1).repeat(shape.channels, 1)
    inputs = {
        "u": normal(*wide),
        "delta": normal(*wide) - 4.0,
        "A": -rates,
        "B": normal(*narrow),
        "C": normal(*narrow),
        "D": normal(shape.channels),
        "z": normal(*wide),
        "delta_bias": normal(shape.channels) * 0.1,
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def scan_mambapy() -> Scan | None:
    """The same scan through mambapy's parallel scan, as its Mamba block uses it; None if not installed."""
    try:
        from mambapy.pscan import pscan
    except ImportError:
        return None

    def scan(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        z: Tensor,
        delta_bias: Tensor,
        delta_softplus: bool,
    ) -> Tensor:
        step = F.softplus(delta + delta_bias) if delta_softplus else delta + delta_bias
        decay = torch.exp(step.unsqueeze(-1) * A)
        enter = step.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1)
        states: Tensor = pscan(decay, enter)
        y: Tensor = (states @ C.unsqueeze(-1)).squeeze(3) + D * u
        return y * F.silu(z)

    return scan


def train_once(scan: Scan, inputs: dict[str, Tensor], dy: Tensor) -> float:
    """Seconds of one forward and backward."""
    start = time.perf_counter()
    torch.autograd.grad(scan(**inputs, delta_softplus=True), list(inputs.values()), dy)
    return time.perf_counter() - start


def infer_once(scan: Scan, inputs: dict[str, Tensor], dy: Tensor) -> float:
    """Seconds of one forward without gradients."""
    start = time.perf_counter()
    with torch.no_grad():
        scan(**inputs, delta_softplus=True)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Contender:
    """One scan in a process of its own, so that how it gets its memory is its own choice."""

    name: str
    reuse: bool
    process: BaseProcess
    pipe: Connection

    @classmethod
    def start(cls, name: str, reuse: bool, shape: Shape, threads: int) -> Contender:
        """A process that holds the inputs and waits to be asked for repetitions."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=repeat_on_request, args=(theirs, name, reuse, shape, threads), daemon=True
        )
        process.start()
        return cls(name, reuse, process, ours)

    def milliseconds(self, training: bool, repetitions: int) -> float:
        """The fastest of `repetitions` passes."""
        self.pipe.send((training, repetitions))
        seconds: float = self.pipe.recv()
        return seconds * 1e3

    def stop(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.join()


def repeat_on_request(pipe: Connection, name: str, reuse: bool, shape: Shape, threads: int) -> None:
    """A contender's process: takes (training, repetitions), answers the fastest repetition's seconds."""
    torch.set_num_threads(threads)
    if reuse:
        reuse_memory()
    scan = find_scan(name)
    if scan is None:
        raise ValueError(f"no scan of the name {name!r} can run here")
    inputs = make_inputs(shape)
    dy = torch.randn(shape.batch, shape.length, shape.channels)
    while (request := pipe.recv()) is not None:
        training, repetitions = request
        once = train_once if training else infer_once
        pipe.send(min(once(scan, inputs, dy) for _ in range(repetitions)))


def find_scan(name: str) -> Scan | None:
    """The scan of that name, None if its package is not installed."""
    return {"native": lambda: selective_scan, "torch": lambda: selective_scan_torch, "mambapy": scan_mambapy}[
        name
    ]()


def fastest(contenders: list[Contender], training: bool, seconds: float) -> dict[tuple[str, bool], float]:
    """Milliseconds of each contender's fastest repetition; turns are taken, and ours repeats more often."""
    best = {(contender.name, contender.reuse): float("inf") for contender in contenders}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for contender in contenders:
            key = (contender.name, contender.reuse)
            repetitions = 20 if contender.name == "native" else 1
            best[key] = min(best[key], contender.milliseconds(training, repetitions))
        rounds += 1
    return best


def largest_error(shape: Shape) -> float:
    """Largest relative error of the output and of every gradient against the reference in float64."""
    inputs = make_inputs(shape)
    dy = torch.randn(shape.batch, shape.length, shape.channels, generator=torch.Generator().manual_seed(1))
    double = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    results = []
    for scan, given, gradient in ((selective_scan, inputs, dy), (selective_scan_torch, double, dy.double())):
        y = scan(**given, delta_softplus=True)
        results.append([y.detach(), *torch.autograd.grad(y, list(given.values()), gradient)])
    pairs = zip(*results, strict=True)
    return max(float((found - exact).abs().max() / exact.abs().max()) for found, exact in pairs)


def exponential_rate() -> float:
    """Exponentials per second of one thread, from and to the first cache: the scan's roofline."""
    if backend.native is None:
        return float("nan")
    count, repetitions = 2048, 1000
    x, y = torch.linspace(-8, 0, count), torch.empty(count)
    best = float("inf")
    for _ in range(100):
        start = time.perf_counter()
        backend.native.exponential(x, y, repetitions)
        best = min(best, time.perf_counter() - start)
    return count * repetitions / best


def measure(shape: Shape, seconds: float, check: bool) -> dict[str, object]:
    """Everything this benchmark reports about one shape."""
    names = [name for name in ("native", "torch", "mambapy") if find_scan(name) is not None]
    threads = torch.get_num_threads()
    contenders = [Contender.start(name, reuse, shape, threads) for name in names for reuse in (True, False)]
    try:
        train = fastest(contenders, True, seconds)
        infer = fastest(contenders, False, seconds / 3)
    finally:
        for contender in contenders:
            contender.stop()
    native, mambapy = train["native", True], train.get(("mambapy", False))
    elements = shape.batch * shape.length * shape.channels
    rate = exponential_rate()
    # One exponential per state and element forward, one more in the backward's recomputation.
    bound_ms = 2 * elements * shape.state / (rate * threads) * 1e3
    return {
        **asdict(shape),
        "threads": threads,
        "backend": describe_backend(),
        "native_ms": native,
        "mambapy_ms": mambapy,
        "ratio_vs_mambapy": ratio(mambapy, native),
        "ratio_vs_mambapy_both_reuse": ratio(train.get(("mambapy", True)), train["native", True]),
        "ratio_vs_mambapy_both_plain": ratio(mambapy, train["native", False]),
        "ratio_vs_torch": ratio(train["torch", False], native),
        **{f"{name}_{'reuse' if reuse else 'plain'}_ms": ms for (name, reuse), ms in train.items()},
        **{f"{name}_forward_{'reuse' if reuse else 'plain'}_ms": ms for (name, reuse), ms in infer.items()},
        "max_rel_err": largest_error(shape) if check else None,
        "exponentials_per_element": 2 * shape.state,
        # Forward u, delta, z, y; backward u, delta, z, dy and three gradients; checkpoints out and in.
        "bytes_per_element": 4 * (4 + 7) + 8 * shape.state / 16,
        "exponentials_per_second_per_thread": rate,
        "exponential_bound_ms": bound_ms,
        "share_of_exponential_bound": bound_ms / native,
    }


def ratio(slower: float | None, faster: float) -> float | None:
    """How many times longer the peer takes; None without the peer."""
    return None if slower is None else slower / faster


def table(result: dict[str, object]) -> str:
    """The result for reading."""

    def number(key: str) -> str:
        value = result.get(key)
        return f"{value:.4g}" if isinstance(value, float) else "-"

    columns = ("forward_reuse_ms", "reuse_ms", "forward_plain_ms", "plain_ms")
    rows = [
        f"(batch, length, channels, state) = "
        f"({result['batch']}, {result['length']}, {result['channels']}, {result['state']})",
        str(result["backend"]),
        "",
        f"{'':10}{'freed memory kept for reuse':>28}{'as it comes':>28}",
        f"{'ms':10}" + f"{'forward':>14}{'fwd + bwd':>14}" * 2,
        *(
            f"{name:10}" + "".join(f"{number(f'{name}_{column}'):>14}" for column in columns)
            for name in ("native", "torch", "mambapy")
        ),
        "",
        f"mambapy as it comes / native as this package runs it: {number('ratio_vs_mambapy')}",
        f"mambapy / native, both with memory kept: {number('ratio_vs_mambapy_both_reuse')}",
        f"mambapy / native, both as they come: {number('ratio_vs_mambapy_both_plain')}",
        f"largest relative error against float64: {number('max_rel_err')}",
        f"roofline: {result['exponentials_per_element']} exponentials and "
        f"{number('bytes_per_element')} bytes per element of u; a thread makes "
        f"{number('exponentials_per_second_per_thread')} exponentials per second, so fwd + bwd takes "
        f"{number('exponential_bound_ms')} ms at least; reached: "
        f"{number('share_of_exponential_bound')} of that bound",
    ]
    return "\n".join(rows)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=880)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--state", type=int, default=16)
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    parser.add_argument("--seconds", type=float, default=15.0, help="least time for the repetitions")
    parser.add_argument("--no-check", action="store_true", help="leave out the comparison with float64")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    shape = Shape(options.batch, options.length, options.channels, options.state)
    result = measure(shape, options.seconds, not options.no_check)
    print(json.dumps(result) if options.json else table(result))


if __name__ == "__main__":
    main()
