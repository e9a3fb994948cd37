"""Both halves of a sum in secret in one process, without the messages between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from client.secure_aggregation import give_keys, give_shares, give_unmasking, masked_answer
from client.site import Policy, SecurePolicy, SiteConfig
from hymate.config import ModelConfig, TaskConfig
from hymate.protocol import MaskedReply
from hymate.scoring_protocol import EvaluateRequest
from hymate.secure_protocol import Terms, UnmaskRequest
from server.secure_session import SecureSession
from strategies.arrays import Weights
from strategies.secure.ring import Vector
from strategies.secure.terms import purpose_of, work_digest

STAGES = ("keys", "shares", "masked", "unmask")
RINGS: dict[str, Any] = {"bits": 32, "clipping_range": 1.0, "heaviest": 1.0, "scores": "summed"}
WEIGHTS: Weights = {"w": np.arange(3.0)}


def hospital(folder: Path, name: str, min_summed: int = 2) -> SiteConfig:
    policy = Policy(secure_aggregation=SecurePolicy(min_summed=min_summed))
    return SiteConfig(name=name, data=folder / "data", state=folder / name / "state", policy=policy)


def hospitals(folder: Path, number: int, min_summed: int = 2) -> dict[str, SiteConfig]:
    return {f"h{i:02d}": hospital(folder, f"h{i:02d}", min_summed) for i in range(number)}


def request(number: int = 1) -> EvaluateRequest:
    return EvaluateRequest(
        study="s",
        run="r",
        task=TaskConfig(),
        model=ModelConfig(),
        vocabulary_hash="",
        seed=0,
        split="held_out",
        round=number,
    )


def answering(name: str, vector: Vector) -> Callable[[Terms], tuple[MaskedReply, Vector]]:
    return lambda terms: (MaskedReply(site=name, seconds=0.0), vector)


class SecureSum:
    """One sum of the sites' vectors, stage by stage; `gone` says before which stage a site drops out,
    `purpose` what the coordinator calls the sum in place of its true purpose."""

    def __init__(
        self,
        sites: Mapping[str, SiteConfig],
        threshold: int,
        gone: Mapping[str, str] | None = None,
        number: int = 1,
        purpose: str = "",
    ) -> None:
        self.sites, self._gone = sites, gone or {}
        self.request = request(number)
        self.session = SecureSession("s", "r", purpose or purpose_of(self.request), threshold)
        self.transcript: dict[str, Vector] = {}
        """What each site sent in place of its numbers."""
        self._there = {stage: self._left(stage) for stage in STAGES}

    def _left(self, stage: str) -> list[str]:
        so_far = STAGES[: STAGES.index(stage) + 1]
        return [name for name in sorted(self.sites) if self._gone.get(name) not in so_far]

    def keys(self) -> None:
        asked = self.session.keys_request()
        for name in self._there["keys"]:
            assert self.session.took_keys(give_keys(self.sites[name], asked)) is None

    def shares(self) -> None:
        self.shares_request = self.session.shares_request(
            self._there["keys"],
            work=work_digest(self.request, WEIGHTS),
            **RINGS,
        )
        for name in self._there["shares"]:
            assert self.session.took_shares(give_shares(self.sites[name], self.shares_request)) is None

    def asked_of(self, name: str) -> EvaluateRequest:
        masked = self.session.masked_for(name, self._there["shares"])
        return self.request.model_copy(update={"secure": masked})

    def mask(self, name: str, vector: Vector) -> Vector:
        asked = self.asked_of(name)
        assert asked.secure is not None
        return masked_answer(self.sites[name], asked, asked.secure, WEIGHTS, answering(name, vector))[1]

    def masked(self, vectors: Mapping[str, Vector]) -> None:
        for name in self._there["masked"]:
            vector = vectors[name]
            expected = {part: (array.size, array.dtype.name) for part, array in vector.items()}
            self.transcript[name] = self.mask(name, vector)
            assert self.session.took_masked(name, self.transcript[name], expected) is None

    def unmask(self) -> Vector:
        asked: UnmaskRequest = self.session.unmask_request()
        for name in self._there["unmask"]:
            assert self.session.took_unmasking(give_unmasking(self.sites[name], asked)) is None
        return self.session.total()

    def run(self, vectors: Mapping[str, Vector]) -> Vector:
        self.keys()
        self.shares()
        self.masked(vectors)
        return self.unmask()
