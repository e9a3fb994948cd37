"""One exchange with the sites: ask, wait, check every reply, write down who took part.

The loop is ours because Flower's `Strategy.start` cannot resume, knows no quorum and stops at one
bad reply. Replies are taken in the order of the sites' names, never of arrival: sums of floats
depend on their order, and a study must give the same bits twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from numpy.typing import NDArray
from pydantic import BaseModel

from hymate.errors import InputFault
from hymate.protocol import Action, DescribeRequest, SiteDescription, TrainReply
from server.journal import Journal
from server.study import ParticipationConfig
from strategies.base import Algorithm
from strategies.screening import fault_of
from strategies.wire import SiteRefused, pack, pack_config, pack_weights, unpack, unpack_weights

Weights = Mapping[str, NDArray[np.generic]]
Record = TypeVar("Record", bound=BaseModel)


class StudyFailure(Exception):
    """The study cannot go on; the message is the cause in one line."""


@dataclass(frozen=True)
class Reply(Generic[Record]):
    """One site's valid answer."""

    site: str
    record: Record
    message: Message


class Federation:
    """The sites of one run, by name, and every exchange with them."""

    def __init__(self, grid: Grid, rules: ParticipationConfig, journal: Journal) -> None:
        self._grid = grid
        self._rules = rules
        self._journal = journal
        self._node_of: dict[str, int] = {}

    @property
    def sites(self) -> list[str]:
        """Names of the sites that joined, in the order every sum is taken."""
        return sorted(self._node_of)

    def join(self, expected: int, request: DescribeRequest) -> list[SiteDescription]:
        """Wait until `expected` nodes are connected, learn their names and what they hold."""
        nodes = self._wait_for_nodes(expected)
        content = pack(request)
        messages = [Message(content, dst_node_id=node, message_type=Action.DESCRIBE) for node in nodes]
        replies = self._exchange("describe", 0, messages, SiteDescription)
        for node, reply in replies:
            if reply.site in self._node_of:
                raise StudyFailure(f"two sites call themselves '{reply.site}': give each its own name")
            self._node_of[reply.site] = node
        self._require("describe", 0, len(replies), expected)
        return [reply.record for _, reply in sorted(replies, key=lambda pair: pair[1].site)]

    def ask(
        self, action: Action, request: BaseModel, kind: type[Record], weights: Weights | None = None
    ) -> list[Reply[Record]]:
        """The same request to every site; valid replies by site name."""
        content = pack(request, weights)
        messages = [
            Message(content, dst_node_id=self._node_of[site], message_type=action) for site in self.sites
        ]
        phase = action.value.split(".")[1]
        replies = self._exchange(phase, 0, messages, kind)
        self._require(phase, 0, len(replies), len(messages))
        return [reply for _, reply in sorted(replies, key=lambda pair: pair[1].site)]

    def train_round(
        self, algorithm: Algorithm, action: Action, server_round: int, request: BaseModel, weights: Weights
    ) -> tuple[dict[str, NDArray[np.generic]], list[Reply[TrainReply]]]:
        """One training round under `algorithm`: the next global weights, and what the sites said."""
        phase = action.value.split(".")[1]
        algorithm.message_type = action
        messages = list(
            algorithm.configure_train(
                server_round, pack_weights(weights), pack_config(request), self._members()
            )
        )
        replies = self._exchange(
            phase,
            server_round,
            messages,
            TrainReply,
            screen=lambda reply: fault_of(unpack_weights(reply.message.content), weights, reply.record.stays),
        )
        self._require(phase, server_round, len(replies), len(messages))
        valid = [reply for _, reply in sorted(replies, key=lambda pair: pair[1].site)]
        folded, _ = algorithm.aggregate_train(server_round, [reply.message for reply in valid])
        assert folded is not None  # _require let at least one reply through
        return {name: array.numpy() for name, array in folded.items()}, valid

    def _members(self) -> Grid:
        """The grid as strategies see it: only this study's sites, in the order of their names."""
        members = copy(self._grid)
        nodes = [self._node_of[site] for site in self.sites]
        members.get_node_ids = lambda: nodes  # type: ignore[method-assign]
        return members

    def _wait_for_nodes(self, expected: int) -> list[int]:
        deadline = time.monotonic() + self._rules.deadline_minutes * 60
        while len(nodes := sorted(self._grid.get_node_ids())) < expected:
            if time.monotonic() > deadline:
                raise StudyFailure(f"{len(nodes)} of {expected} sites connected before the deadline")
            time.sleep(0.5)
        return nodes

    def _exchange(
        self,
        phase: str,
        server_round: int,
        messages: Iterable[Message],
        kind: type[Record],
        screen: Callable[[Reply[Record]], str | None] | None = None,
    ) -> list[tuple[int, Reply[Record]]]:
        """Send, wait until all answered or the deadline passed, keep the replies that hold."""
        sent = list(messages)
        asked = {message.metadata.dst_node_id for message in sent}
        began = time.monotonic()
        self._journal.metric(phase, "asked", sites=len(sent), server_round=server_round)
        name_of = {node: site for site, node in self._node_of.items()}
        valid = []
        for message in self._grid.send_and_receive(sent, timeout=self._rules.deadline_minutes * 60):
            node = message.metadata.src_node_id
            asked.discard(node)
            site = name_of.get(node, f"node {node}")
            outcome, reason, reply = _judge(message, kind, site, screen)
            if reply is not None:
                valid.append((node, reply))
                site = reply.site
            self._journal.participation(
                phase, server_round, site, outcome, reason=reason, seconds=time.monotonic() - began
            )
        for node in asked:
            self._journal.participation(phase, server_round, name_of.get(node, f"node {node}"), "late")
        return valid

    def _require(self, phase: str, server_round: int, valid: int, asked: int) -> None:
        needed = asked if self._rules.minimum_sites == "all" else min(self._rules.minimum_sites, asked)
        if valid < max(needed, 1):
            where = f"{phase} round {server_round}" if server_round else phase
            raise StudyFailure(
                f"{where}: {valid} of {asked} sites gave a usable reply, {needed} are needed; "
                f"{self._journal.last_trouble or 'participation.jsonl says why'}"
            )


def _judge(
    message: Message,
    kind: type[Record],
    site: str,
    screen: Callable[[Reply[Record]], str | None] | None,
) -> tuple[str, str, Reply[Record] | None]:
    """Outcome, reason and, where it holds, the reply of one message."""
    if message.has_error():
        return "failed", _first_line(message.error.reason), None
    try:
        record = unpack(message.content, kind)
    except SiteRefused as refused:
        return "refused", refused.refusal.reason, None
    except InputFault as fault:
        return "rejected", str(fault), None
    reply = Reply(str(getattr(record, "site", site)), record, message)
    fault_found = screen(reply) if screen else None
    if fault_found:
        return "rejected", fault_found, None
    return "replied", "", reply


def _first_line(reason: str | None) -> str:
    return (reason or "no reason given").strip().splitlines()[0]
