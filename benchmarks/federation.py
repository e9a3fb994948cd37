"""Seconds and bytes of a round outside training, ours against a bare Flower app in the same run.

    python -m benchmarks.federation                 # a table
    python -m benchmarks.federation --json          # one JSON object
    python -m benchmarks.federation --rounds 20 --sites 3

Three kinds of federation on loopback, each with TLS, node keys and as many sites:

- `overhead`: a study led by `flower-server`, with `hymate-client` at each site. Time between two rounds
  less the slowest site's training.
- `bare`: benchmarks/bare_flower, which sends the weights to every site and back, averaged by Flower's own
  FedAvg, with the settings that ours runs under: the same SuperLink, `hymate-client` at the sites (whose
  policy approves the bundle), the weights as one array, replies looked for every 0.1 s.
- `stock`: the same app with nothing set: `flower-supernode` as it comes, an array for every tensor, and
  Flower's own pace.

They take turns, `--turns` times each, so that what else the machine does meets all of them. Median and
quartiles are over all rounds but the first of each turn. Processor seconds are those of all processes of
a federation, training included; other work on the machine hardly moves them. Bytes are counted by a relay
between sites and coordinator, so that TLS, framing and asking for work are in them; a round has to carry
the model twice for each site.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.local_federation import PATIENCE_S, Bench
from benchmarks.processor import Processor
from benchmarks.relay import Relay
from server.control import Bundle
from server.launch import SuperLink, deployed_superlink

ROUND_S = 120.0
"""Limit as `PATIENCE_S` is one, for each round."""
BARE = Path(__file__).parent / "bare_flower"


@dataclass(frozen=True)
class Rounds:
    """When each round ended, in seconds of `time.time`, and its slowest site's training."""

    ends: Sequence[float]
    training: Sequence[float]

    def outside(self) -> list[float]:
        """Seconds of each round outside training, the first left out."""
        return [
            end - begin - trained
            for begin, end, trained in zip(self.ends, self.ends[1:], self.training[1:], strict=False)
        ]


@dataclass
class Turns:
    """All turns of one kind of federation, and what its rounds but the first of each took."""

    kind: str
    rounds: list[Rounds] = field(default_factory=list)
    passed: int = 0
    worked: float = 0.0

    def add(self, found: Rounds, relay: Relay, processor: Processor) -> None:
        span = found.ends[0], found.ends[-1]
        self.rounds.append(found)
        self.passed += relay.between(*span)
        self.worked += processor.between(*span)
        seconds = ", ".join(f"{second:.2f}" for second in found.outside())
        print(f"turn {len(self.rounds)}, {self.kind}: {seconds} s", file=sys.stderr)

    def seconds(self) -> list[float]:
        return [second for found in self.rounds for second in found.outside()]

    def median(self) -> float:
        return statistics.median(self.seconds())

    def quartiles(self) -> list[float]:
        """Lower and upper quartile; of a single round, that round's seconds twice."""
        found = self.seconds()
        if len(found) < 2:
            return found * 2
        cuts = statistics.quantiles(found, n=4, method="inclusive")
        return [cuts[0], cuts[2]]

    def bytes(self, sites: int) -> float:
        """Bytes of a round and site."""
        return self.passed / len(self.seconds()) / sites

    def processor(self) -> float:
        """Processor seconds of a round, all processes together."""
        return self.worked / len(self.seconds())


def until(happened: Callable[[], bool], what: str, limit_s: float = PATIENCE_S) -> None:
    """Wait for a truth, or end with what did not come true."""
    deadline = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > deadline:
            raise SystemExit(f"benchmarks.federation: {what} did not happen within {limit_s:.0f} s")
        time.sleep(0.2)


def bare_bundle() -> Bundle:
    """The bare app as Flower packs it."""
    from flwr.cli.build import build_fab_from_disk

    return Bundle(build_fab_from_disk(BARE))


def our_rounds(bench: Bench, label: str) -> Rounds:
    """A study by `flower-server`; what its run folder `label`-run says of the rounds."""
    run = bench.folder / f"{label}-run"
    command = [sys.executable, "-m", "server.server_cli", "--config", str(bench.folder / "study.yaml")]
    limit_s = PATIENCE_S + ROUND_S * bench.rounds
    with bench.clients(label, None):
        server = subprocess.Popen(
            [*command, "--out", str(run), "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, words = server.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"benchmarks.federation: the study took more than {limit_s:.0f} s") from None
        finally:
            server.terminate()
            server.wait()
    if server.returncode:
        raise SystemExit(f"benchmarks.federation: the study ended early: {words[-2000:]}")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if line["phase"] == "finetune" and line["event"] == "round"]
    return Rounds([line["time"] for line in rounds], [line["slowest_s"] for line in rounds])


def bare_rounds(bench: Bench, label: str, weights: Path, *, stock: bool) -> Rounds:
    """The bare app through the same SuperLink; its sites run `hymate-client`, or Flower's own SuperNode."""
    bundle = bare_bundle()
    out = bench.folder / f"{label}.json"
    sites = bench.stock_nodes(label) if stock else bench.clients(label, bundle.sha256)
    with deployed_superlink(bench.federation, bench.folder / f"superlink-{label}") as link:
        for entry in bench.federation.sites.values():
            link.control.register(entry.public_key)
        with sites:
            until(lambda: all(node.online for node in link.control.nodes().values()), "every site connects")
            settings: dict[str, str | int] = {
                "out": str(out),
                "weights": str(weights),
                "sites": len(bench.sites),
                "rounds": bench.rounds,
                "quick": int(not stock),
            }
            run = link.control.start(bundle, settings)
            until(
                lambda: _ended(link, run), f"the end of the {label} app", PATIENCE_S + ROUND_S * bench.rounds
            )
    if not out.is_file():
        raise SystemExit(f"benchmarks.federation: the {label} app ended without a result")
    told = json.loads(out.read_text(encoding="utf-8"))
    if told["replies"] != [len(bench.sites)] * bench.rounds:
        raise SystemExit(f"benchmarks.federation: the {label} app missed replies: {told['replies']}")
    return Rounds(told["ends"], [0.0] * bench.rounds)


def _ended(link: SuperLink, run: int) -> bool:
    return link.control.verdict(run)[0].startswith("finished")


def measure(
    sites: int, stays: int, rounds: int, turns: int, model: dict[str, Any], *, with_stock: bool = True
) -> dict[str, Any]:
    """Everything this benchmark reports. `model`: keys of the study's `model:` section."""
    from safetensors.numpy import load_file

    ours, bare, stock = (Turns(kind) for kind in ("ours", "bare", "stock"))
    with tempfile.TemporaryDirectory(prefix="federation-") as name:
        folder = Path(name)
        bench = Bench(folder, sites, stays, rounds, model)
        with bench.relay() as relay, Processor() as processor:
            meters = relay, processor
            for turn in range(turns):
                ours.add(our_rounds(bench, f"ours-{turn}"), *meters)
                arrays = load_file(folder / f"ours-{turn}-run" / "model" / "weights.safetensors")
                whole = np.concatenate([array.ravel() for array in arrays.values()])
                np.savez(folder / "whole.npz", allow_pickle=False, weights=whole)
                np.savez(folder / "named.npz", allow_pickle=False, **arrays)
                bare.add(bare_rounds(bench, f"bare-{turn}", folder / "whole.npz", stock=False), *meters)
                if with_stock:
                    stock.add(bare_rounds(bench, f"stock-{turn}", folder / "named.npz", stock=True), *meters)
    training = [second for found in ours.rounds for second in found.training[1:]]
    unlike = (
        {
            "stock_s_per_round": stock.median(),
            "stock_s_quartiles": stock.quartiles(),
            "ratio_to_stock": ours.median() / stock.median(),
            "stock_processor_s_per_round": stock.processor(),
            "bytes_per_round_stock": stock.bytes(sites),
        }
        if with_stock
        else {}
    )
    return {
        "sites": sites,
        "rounds": len(ours.seconds()),
        "overhead_s_per_round": ours.median(),
        "overhead_s_quartiles": ours.quartiles(),
        "bare_s_per_round": bare.median(),
        "bare_s_quartiles": bare.quartiles(),
        "ratio": ours.median() / bare.median(),
        "training_s_per_round": statistics.median(training),
        "processor_s_per_round": ours.processor(),
        "bare_processor_s_per_round": bare.processor(),
        "processor_ratio": ours.processor() / bare.processor(),
        "model_arrays": len(arrays),
        "model_bytes": whole.nbytes,
        "bytes_per_round": ours.bytes(sites),
        "bytes_per_round_bare": bare.bytes(sites),
        "bytes_ratio": ours.bytes(sites) / (2 * whole.nbytes),
        **unlike,
    }


def table(result: dict[str, Any]) -> str:
    """The result for reading."""
    return "\n".join(
        f"{name:24}{' to '.join(f'{part:.4g}' for part in np.atleast_1d(value))}"
        for name, value in result.items()
    )


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument(
        "--stays", type=int, default=60, help="of each site (default 60: seconds, not minutes)"
    )
    parser.add_argument(
        "--rounds", type=int, default=6, help="of each turn, the first of which does not count (default 6)"
    )
    parser.add_argument("--turns", type=int, default=2, help="of each kind (default 2)")
    parser.add_argument("--model", type=json.loads, default={}, help="keys of `model:` as JSON")
    parser.add_argument("--without-stock", action="store_true", help="ours and bare only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing started here is left running
    if options.rounds < 2 or options.turns < 1:
        parser.error("--rounds: at least 2; --turns: at least 1")
    result = measure(
        options.sites,
        options.stays,
        options.rounds,
        options.turns,
        options.model,
        with_stock=not options.without_stock,
    )
    print(json.dumps(result) if options.json else table(result))


if __name__ == "__main__":
    main()
