"""How fast is the selective scan, against its peers and against this machine?

    python -m benchmarks.scan                      # a table
    python -m benchmarks.scan --json               # one JSON object
    python -m benchmarks.scan --batch 1 --length 8192

Peers are measured in the same run, their repetitions interleaved with ours, and the fastest repetition
of each counts: what else the machine does at the time then weighs on all alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

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


def fastest(
    scans: dict[str, Scan],
    once: Callable[[Scan, dict[str, Tensor], Tensor], float],
    shape: Shape,
    seconds: float,
) -> dict[str, float]:
    """Milliseconds of each scan's fastest repetition; turns are taken, and ours repeats more often."""
    inputs = make_inputs(shape)
    dy = torch.randn(shape.batch, shape.length, shape.channels)
    best = {name: float("inf") for name in scans}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for name, scan in scans.items():
            for _ in range(20 if name == "native" else 1):
                best[name] = min(best[name], once(scan, inputs, dy))
        rounds += 1
    return {name: value * 1e3 for name, value in best.items()}


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
    scans: dict[str, Scan] = {"native": selective_scan, "torch": selective_scan_torch}
    if (peer := scan_mambapy()) is not None:
        scans["mambapy"] = peer
    train = fastest(scans, train_once, shape, seconds)
    infer = fastest(scans, infer_once, shape, seconds / 3)
    mambapy, mambapy_infer = train.get("mambapy"), infer.get("mambapy")
    threads = torch.get_num_threads()
    elements = shape.batch * shape.length * shape.channels
    rate = exponential_rate()
    # One exponential per state and element forward, one more in the backward's recomputation.
    bound_ms = 2 * elements * shape.state / (rate * threads) * 1e3
    return {
        **asdict(shape),
        "threads": threads,
        "backend": describe_backend(),
        "native_ms": train["native"],
        "torch_ms": train["torch"],
        "mambapy_ms": mambapy,
        "ratio_vs_mambapy": None if mambapy is None else mambapy / train["native"],
        "ratio_vs_torch": train["torch"] / train["native"],
        "native_forward_ms": infer["native"],
        "torch_forward_ms": infer["torch"],
        "mambapy_forward_ms": mambapy_infer,
        "ratio_vs_mambapy_forward": None if mambapy_infer is None else mambapy_infer / infer["native"],
        "max_rel_err": largest_error(shape) if check else None,
        "exponentials_per_element": 2 * shape.state,
        # Forward u, delta, z, y; backward u, delta, z, dy and three gradients; checkpoints out and in.
        "bytes_per_element": 4 * (4 + 7) + 8 * shape.state / 16,
        "exponentials_per_second_per_thread": rate,
        "exponential_bound_ms": bound_ms,
        "share_of_exponential_bound": bound_ms / train["native"],
    }


def table(result: dict[str, object]) -> str:
    """The result for reading."""

    def number(key: str, unit: str = "") -> str:
        value = result[key]
        return f"{value:10.4g}{unit}" if isinstance(value, float) else f"{'-':>10}"

    rows = [
        f"(batch, length, channels, state) = "
        f"({result['batch']}, {result['length']}, {result['channels']}, {result['state']})",
        str(result["backend"]),
        "",
        f"{'ms':10}{'forward':>10}{'fwd + bwd':>12}",
        *(
            f"{name:10}{number(f'{name}_forward_ms')}  {number(f'{name}_ms')}"
            for name in ("native", "torch", "mambapy")
        ),
        f"{'ratio':10}{number('ratio_vs_mambapy_forward')}  {number('ratio_vs_mambapy')}  (mambapy / native)",
        f"largest relative error against float64: {number('max_rel_err').strip()}",
        f"roofline: {result['exponentials_per_element']} exponentials and "
        f"{number('bytes_per_element').strip()} bytes per element of u; a thread makes "
        f"{number('exponentials_per_second_per_thread').strip()} exponentials per second, so fwd + bwd takes "
        f"{number('exponential_bound_ms').strip()} ms at least; reached: "
        f"{number('share_of_exponential_bound').strip()} of that bound",
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
    reuse_memory()  # for all alike; else the system's zeroing of fresh pages is most of what is measured
    shape = Shape(options.batch, options.length, options.channels, options.state)
    result = measure(shape, options.seconds, not options.no_check)
    print(json.dumps(result) if options.json else table(result))


if __name__ == "__main__":
    main()
