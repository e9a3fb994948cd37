"""What a site must have said before it is asked what all are: who it is, and that it has the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hymate.joining_protocol import DescribeRequest, PrepareReply, PrepareRequest, SiteDescription
from hymate.protocol import Action
from server.exchange import Reply, Step
from server.failure import StudyFailure
from server.roster import Roster
from strategies.wire import pack

EARLY = (Action.DESCRIBE, Action.STATISTICS, Action.PREPARE)
"""What is asked before there is a vocabulary to agree to."""


class Admission:
    """The way of each site into the study's exchanges."""

    def __init__(self, describe: DescribeRequest, roster: Roster) -> None:
        self.describe = describe
        self._roster = roster
        self._prepare: PrepareRequest | None = None

    def freeze(self, request: PrepareRequest) -> None:
        """From here on a site takes part once it has agreed to this vocabulary."""
        self._prepare = request

    def next_step(self, node: int, step_for: Callable[[int], Step]) -> Step:
        """What this site must answer next on its way to the step that is asked of all."""
        last = step_for(node)
        if last.action != Action.DESCRIBE and not self._roster.known(node):
            return replace(self.describing(node), last=False)
        if last.action not in EARLY and not self._roster.of(node).ready:
            return replace(self.preparing(node), last=False)
        return last

    def describing(self, node: int) -> Step:
        """Say its name and what it holds; raises `StudyFailure` where a simulated site's name cannot be."""

        def accept(reply: Reply[SiteDescription]) -> str | None:
            try:
                self._roster.introduced(node, reply.record)
            except ValueError as fault:
                if self._roster.deployed:
                    return str(fault)
                raise StudyFailure(str(fault)) from None
            return None

        return Step(Action.DESCRIBE, pack(self.describe), SiteDescription, accept)

    def preparing(self, node: int) -> Step:
        """Make its store under the frozen vocabulary."""
        assert self._prepare is not None  # asked only once the vocabulary is frozen
        standing, agreed = self._roster.of(node), self._prepare.vocabulary_hash

        def accept(reply: Reply[PrepareReply]) -> str | None:
            fault = self.is_itself(node, reply)
            if fault is None and (other := reply.record.vocabulary_hash) != agreed:
                fault = f"agreed to vocabulary {other[:12]}, the study's is {agreed[:12]}"
            if fault is None:
                standing.prepared, standing.ready = reply.record, True
            return fault

        return Step(Action.PREPARE, pack(self._prepare), PrepareReply, accept)

    def is_itself(self, node: int, reply: Reply[Any]) -> str | None:
        """What is wrong with the name under which a node answers, if anything."""
        known = self._roster.label(node)
        return None if reply.site == known else f"calls itself '{reply.site}', but it is '{known}'"
