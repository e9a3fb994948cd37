"""What does secure aggregation add to a round, in bytes and seconds?

    python -m benchmarks.secure_aggregation                      # a table
    python -m benchmarks.secure_aggregation --json               # one JSON object
    python -m benchmarks.secure_aggregation --sites 4 32 --dropped 0.25

One round of fine-tuning of the default model, without the training: both halves of the sum as a study runs
them, keys and masked numbers written to the disk by every site, messages made and counted but not sent.
Seconds of a site are its own; the coordinator's are of the whole round. A share `dropped` of the sites sends
no masked numbers: their keys are then put together from shares, the coordinator's dearest case. A plain round
moves the weights down and up once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from client.secure_aggregation import give_keys, give_shares, give_unmasking, masked_answer
from client.site import Policy, SecurePolicy, SiteConfig
from hymate.config import ModelConfig, TaskConfig
from hymate.evaluate.histograms import BINS
from hymate.model.hymate import build_model
from hymate.protocol import MaskedReply
from hymate.scoring_protocol import EvaluateRequest
from hymate.secure_config import SecureAggregationConfig
from hymate.secure_protocol import Terms
from server.secure_session import SecureSession
from server.training_round import array_bytes
from strategies.base import Arrays
from strategies.secure.contents import Rings, SiteRound, round_of, round_vector, sizes
from strategies.secure.ring import Vector
from strategies.secure.terms import purpose_of, work_digest
from strategies.wire import ARRAYS, CONFIG, pack, unpack_weights

CODES, STATIC = 90, 10
SITES = (4, 32)
CONFIG_OF_STUDY = SecureAggregationConfig(threshold=0.67)


class Meter:
    """Seconds and bytes by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, int] = defaultdict(int)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - began

    def message(self, name: str, content: RecordDict) -> RecordDict:
        """Count a message's content."""
        self.bytes[name] += len(str(content.config_records[CONFIG]["json"]))
        if ARRAYS in content.array_records:
            self.bytes[name] += array_bytes(content)
        return content


def weights() -> Arrays:
    """The default model's, for as many codes as PhysioNet-2012 has."""
    model = build_model(ModelConfig(), codes=CODES, static_width=STATIC, time_scale_hours=48.0, seed=0)
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


def one_round(sites: int, dropped: int, shared: Arrays, folder: Path) -> dict[str, Any]:
    """Bytes and seconds of one round, and how far its mean is from the plain one."""
    meter = Meter()
    homes = {f"h{i:03d}": _home(folder, f"h{i:03d}") for i in range(sites)}
    request = EvaluateRequest(
        study="s", run="r", task=TaskConfig(), model=ModelConfig(), vocabulary_hash="", seed=0, split="tuning"
    )
    trained = {name: _moved(shared, seed) for seed, name in enumerate(homes)}
    survivors = list(homes)[dropped:]
    session = SecureSession("s", "r", purpose_of(request), CONFIG_OF_STUDY.needed(sites))
    meter.message("plain", pack(request, shared))

    for site in homes.values():
        asked = session.keys_request()
        meter.message("down", pack(asked))
        with meter.time("site"):
            reply = give_keys(site, asked)
        session.took_keys(reply)
        meter.message("up", pack(reply))
    with meter.time("coordinator"):
        agreed = session.shares_request(
            list(homes),
            work=work_digest(request, shared),
            bits=CONFIG_OF_STUDY.bits,
            clipping_range=CONFIG_OF_STUDY.clipping_range,
            heaviest=1.0,
            scores="summed",
        )
    for site in homes.values():
        meter.message("down", pack(agreed))
        with meter.time("site"):
            shares = give_shares(site, agreed)
        session.took_shares(shares)
        meter.message("up", pack(shares))
    expected = sizes(shared, CONFIG_OF_STUDY.bits, BINS)
    for name in survivors:
        secure = session.masked_for(name, list(homes))
        meter.message("down", pack(request.model_copy(update={"secure": secure}), shared))
        found = SiteRound(trained[name], weight=1.0)

        def answer(terms: Terms, name: str = name, found: SiteRound = found) -> tuple[MaskedReply, Vector]:
            return MaskedReply(site=name, seconds=0.0), round_vector(found, shared, Rings.of(terms), BINS)

        with meter.time("site"):
            content = pack(*masked_answer(homes[name], request, secure, shared, answer))
        meter.message("up", content)
        with meter.time("coordinator"):
            session.took_masked(name, unpack_weights(content), expected)
    for name in survivors:
        opening = session.unmask_request()
        meter.message("down", pack(opening))
        with meter.time("site"):
            given = give_unmasking(homes[name], opening)
        session.took_unmasking(given)
        meter.message("up", pack(given))
    with meter.time("coordinator"):
        found_mean = round_of(session.total(), shared, Rings.of(agreed.terms), BINS).shared
    return {
        "sites": sites,
        "dropped": dropped,
        "numbers": sum(array.size for array in shared.values()),
        "site_seconds": meter.seconds["site"] / sites,
        "coordinator_seconds": meter.seconds["coordinator"],
        "bytes_down_of_a_site": meter.bytes["down"] / sites,
        "bytes_up_of_a_site": meter.bytes["up"] / sites,
        "bytes_of_the_plain_weights": meter.bytes["plain"],
        "largest_error": _distance(found_mean, [trained[name] for name in survivors]),
    }


def _home(folder: Path, name: str) -> SiteConfig:
    policy = Policy(secure_aggregation=SecurePolicy(min_summed=2))
    return SiteConfig(name=name, data=folder, state=folder / name, policy=policy)


def _moved(shared: Arrays, seed: int) -> Arrays:
    """Weights after a round that moved each by a few thousandths."""
    draw = np.random.default_rng(seed)
    return {
        name: np.add(array, draw.normal(0, 2e-3, array.shape)).astype(array.dtype)
        for name, array in shared.items()
    }


def _distance(found: Arrays, updates: list[Arrays]) -> float:
    means = {name: np.mean([update[name].astype(np.float64) for update in updates], axis=0) for name in found}
    return max(float(np.abs(found[name] - mean).max()) for name, mean in means.items())


def table(rounds: Sequence[Mapping[str, Any]]) -> str:
    """The result for reading."""
    return "\n".join(f"{name:28}" + "".join(f"{one[name]:16,.6g}" for one in rounds) for name in rounds[0])


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=list(SITES))
    parser.add_argument("--dropped", type=float, default=0.25, help="share of sites that drop out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(None if arguments is None else list(arguments))
    shared = weights()
    rounds = []
    for sites in options.sites:
        for dropped in sorted({0, int(options.dropped * sites)}):
            with tempfile.TemporaryDirectory() as folder:
                rounds.append(one_round(sites, dropped, shared, Path(folder)))
    print(json.dumps({"rounds": rounds}) if options.json else table(rounds))


if __name__ == "__main__":
    main()
