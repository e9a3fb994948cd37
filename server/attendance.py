"""Which sites are there and asked now, and the waiting for those that are not."""

from __future__ import annotations

from collections.abc import Collection

from flwr.serverapp import Grid

from server.exchange import Clock
from server.journal import Journal
from server.participation import ParticipationConfig
from server.roster import Roster
from server.sampling import Draw

SETTLE_S = 10.0
"""How long a study waits for its last sites once those connected are enough to begin."""
PAUSE_MINUTES = 10.0


class Attendance:
    """The sites of one study, as they come and go."""

    def __init__(
        self, grid: Grid, rules: ParticipationConfig, journal: Journal, roster: Roster, clock: Clock
    ) -> None:
        self._grid, self._rules, self._journal = grid, rules, journal
        self._roster, self._clock = roster, clock

    def to_ask(
        self, draw: Draw, usable: Collection[int], barred: Collection[int], *, again: bool
    ) -> list[int]:
        """The nodes to ask now; who is left out, and why, is written down once a round."""
        phase, server_round = draw.phase, draw.number
        label = self._roster.label
        present = set(self._grid.get_node_ids())
        answered = {label(node) for node in usable}
        members = [node for node in self._roster.members(present) if node not in {*usable, *barred}]
        # One-off exchanges (the vocabulary, the figures at the end) ask everyone who is there.
        due, rested = members, list[int]()
        if server_round:
            due, rested = self._roster.due(members, lambda names: draw.enough(names | answered))
        drawn = draw.of(map(label, due), answered)
        if not again:
            for site in self._roster.away(present):
                self._journal.participation(phase, server_round, site, "absent", reason="is not connected")
            for node in rested:
                self._roster.of(node).waited += 1
                reason = f"gave no usable reply in its last {self._roster.of(node).failures} rounds"
                self._journal.participation(phase, server_round, label(node), "skipped", reason=reason)
            for site in sorted({label(node) for node in due} - drawn):
                reason = f"not among the {draw.size} sites drawn for this round"
                self._journal.participation(phase, server_round, site, "undrawn", reason=reason)
        return [node for node in due if label(node) in drawn]

    def wait_for_nodes(self) -> None:
        """Wait until the study's sites are connected, or enough of them to begin."""
        began = self._clock.now()
        while len(nodes := self._roster.members(self._grid.get_node_ids())) < self._roster.expected:
            waited = self._clock.now() - began
            names = {self._roster.label(node) for node in nodes}
            begun = self._roster.deployed and waited > SETTLE_S
            if begun and self._rules.satisfied(names, self._roster.expected):
                return
            if waited > self._rules.deadline_minutes * 60:
                return  # whoever is there is asked; below quorum that ends with who is missing
            self._clock.sleep(0.5)

    @property
    def pause_minutes(self) -> float:
        """Between two tries."""
        if self._rules.pause_minutes is not None:
            return self._rules.pause_minutes
        return PAUSE_MINUTES if self._roster.deployed else 0.0

    def pause(self, phase: str, server_round: int, attempt: int, cause: str) -> None:
        """Wait for things to mend; a site that comes back ends the wait."""
        self._journal.metric(phase, "paused", server_round=server_round, attempt=attempt, cause=cause)
        before = set(self._grid.get_node_ids())
        until = self._clock.now() + self.pause_minutes * 60
        while self._clock.now() < until and not set(self._grid.get_node_ids()) - before:
            self._clock.sleep(min(1.0, until - self._clock.now()))
