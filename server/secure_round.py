"""One sum in secret over the network: four exchanges, each of which some sites may not survive.

The sum is opened only where enough sites are in it for the session and for the study; else it is given up,
and tried again with new keys. Nobody's numbers are unmasked alone, whatever fails.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from hymate.protocol import Action, MaskedReply, PretrainRequest, RoundRequest
from hymate.scoring_protocol import EvaluateRequest
from hymate.secure_config import SecureAggregationConfig
from hymate.secure_protocol import KeysReply, SharesReply, UnmaskReply
from server.exchange import Reply, Step
from server.roster import Roster
from server.sampling import Draw
from server.secure_session import SecureSession
from server.training_round import addressed
from strategies.arrays import Weights
from strategies.secure.contents import Rings
from strategies.secure.keys import NotOpened
from strategies.secure.ring import Vector
from strategies.secure.terms import purpose_of, work_digest
from strategies.wire import pack, unpack_weights

Nodes = Mapping[int, Reply[Any]]
Stage = Callable[[str, Iterable[int], Callable[[int], Step], Callable[[set[int]], bool]], Nodes]
"""An exchange: its name, nodes, what each is asked, and whether so many answers are enough -> replies."""


@dataclass(frozen=True)
class SecretWork:
    """What is asked of all sites, and what of their answers is summed."""

    action: Action
    request: RoundRequest | EvaluateRequest
    arrays: Weights
    """That travel with the request."""
    scores: str
    """As in `Terms`."""
    expected: Mapping[str, tuple[int, str]]
    """Part -> how many numbers of which type each site must send."""
    weight_of: Callable[[str], float] = lambda site: 1.0
    """How much a site counts, by what it said it holds ..."""
    tells_weight: bool = False
    """... and whether it is to count just so, whatever it trains on."""
    fault_of: Callable[[MaskedReply], str | None] = lambda reply: None
    """What is wrong with what a site tells beside its numbers, if anything."""


@dataclass(frozen=True)
class Summed:
    """A sum that was opened."""

    total: Vector
    rings: Rings
    replies: tuple[Reply[MaskedReply], ...]
    """Of the sites in it, by name."""


@dataclass(frozen=True)
class GivenUp:
    """A sum that was not opened."""

    sites: int
    """That were left in the end."""
    reason: str


class SecureAttempt:
    """One attempt at a sum, with keys of its own."""

    def __init__(
        self, work: SecretWork, config: SecureAggregationConfig, draw: Draw, roster: Roster, stage: Stage
    ) -> None:
        self._work, self._config, self._draw = work, config, draw
        self._roster, self._stage = roster, stage

    def run(self, nodes: Collection[int]) -> Summed | GivenUp:
        """The sum of what these nodes hold, those that dropped out left out."""
        work = self._work
        request = work.request
        session = SecureSession(
            request.study, request.run, purpose_of(request), self._config.needed(len(nodes))
        )

        def enough(answered: Collection[int]) -> bool:
            names = {self._roster.label(node) for node in answered}
            return session.enough(names) and self._draw.enough(names)

        def ask(
            name: str, of: Iterable[int], action: Action, asked: BaseModel, kind: type, took: Any
        ) -> Nodes:
            step = Step(action, pack(asked), kind, lambda reply: took(reply.record))
            return self._stage(name, of, lambda node: step, enough)

        keys = ask("keys", nodes, Action.KEYS, session.keys_request(), KeysReply, session.took_keys)
        if not enough(keys):
            return GivenUp(len(keys), "too few gave keys for masks")
        sites = self._names(keys)
        agreed = session.shares_request(
            sites,
            work=work_digest(request, work.arrays),
            bits=self._config.bits,
            clipping_range=self._config.clipping_range,
            heaviest=max(map(work.weight_of, sites)),
            scores=work.scores,
        )
        shares = ask("shares", keys, Action.SHARES, agreed, SharesReply, session.took_shares)
        if not enough(shares):
            return GivenUp(len(shares), "too few gave shares of their keys")
        masked = self._stage("", shares, self._masked_steps(session, self._names(shares)), enough)
        if not enough(masked):
            return GivenUp(len(masked), "too few sent masked numbers, and nothing was unmasked")
        unmasking = ask(
            "unmask", masked, Action.UNMASK, session.unmask_request(), UnmaskReply, session.took_unmasking
        )
        if not session.enough(unmasking):
            return GivenUp(len(unmasking), "too few helped to open the sum")
        replies = tuple(masked[node] for node in sorted(masked, key=self._roster.label))
        try:
            return Summed(session.total(), Rings.of(agreed.terms), replies)
        except NotOpened as fault:
            return GivenUp(len(unmasking), f"the sum cannot be opened: {fault}")

    def _masked_steps(self, session: SecureSession, senders: list[str]) -> Callable[[int], Step]:
        work = self._work
        content = pack(work.request, work.arrays)
        phase = "pretrain" if isinstance(work.request, PretrainRequest) else "finetune"

        def accept(reply: Reply[MaskedReply]) -> str | None:
            vector = unpack_weights(reply.content)
            return work.fault_of(reply.record) or session.took_masked(reply.site, vector, work.expected)

        def step_for(node: int) -> Step:
            site = self._roster.label(node)
            weight = work.weight_of(site) if work.tells_weight else None
            secure = session.masked_for(site, senders, weight)
            request = work.request.model_copy(update={"secure": secure})
            own = addressed(content, request, phase, self._roster.of(node))
            return Step(work.action, own, MaskedReply, accept)

        return step_for

    def _names(self, nodes: Iterable[int]) -> list[str]:
        return sorted(map(self._roster.label, nodes))
