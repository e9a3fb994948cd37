"""What one private round is, so that the same round is known again and any other is charged."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from client.site import SiteConfig
from hymate.config import Frozen
from hymate.privacy.spend import Spend
from strategies.arrays import Weights

PROGRAMS = ("hymate-federated", "torch", "opacus", "numpy")


@dataclass(frozen=True)
class Entry:
    """One round with noise, or one release of figures with noise."""

    study: str
    run: str
    phase: str
    round: int
    start: str
    """`start_of` the round: digest of all it begins with."""
    vocabulary_hash: str
    dataset: str
    """Fingerprint of the data set."""
    spend: Spend

    def identity(self, secret_name: str) -> str:
        """SHA-256 (hex) of every field and the secret that makes the noise.

        Two rounds of one identity give the same bits, and are one release. Were anything left out, a round
        could be asked twice with the same noise and that one thing changed, and the difference of the two
        replies would hold no noise at all.
        """
        content = json.dumps([asdict(self), secret_name], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def start_of(site: SiteConfig, request: Frozen, *arrays: Weights, machine: str = "") -> str:
    """SHA-256 (hex) of what decides the bits of a round's reply, but for the data and the noise.

    Args:
        request: as received: rates, epochs, model, strategy, all of it.
        arrays: weights received; what came beside them; what the site remembers and goes on from (moments
            of the optimiser, own layers, the strategy's memory). All of them, always in the same order.
        machine: `machine_of`, where the reply holds what a model computes.
    """
    digest = hashlib.sha256()

    def add(content: bytes) -> None:
        digest.update(len(content).to_bytes(8, "big") + content)

    add(json.dumps({name: version(name) for name in PROGRAMS}).encode())
    add(str(site.threads).encode())  # it decides the order of sums
    add(machine.encode())
    add(type(request).__name__.encode())
    add(_canonical(request.model_dump(mode="json")))
    for part in arrays:
        add(str(len(part)).encode())
        for name in sorted(part):
            array = np.ascontiguousarray(part[name])
            add(f"{name} {array.dtype.str} {array.shape}".encode())
            add(array.tobytes())
    return digest.hexdigest()


def machine_of() -> str:
    """What decides a sum's last bits beside the programs' versions: the same noise over other bits would
    show a little of what it covers."""
    import torch

    from hymate.ops.selective_scan import describe_backend

    return f"{describe_backend()} {torch.backends.cpu.get_cpu_capability()}"


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
