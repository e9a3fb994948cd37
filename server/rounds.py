"""Rounds with the study's sites: who is asked, whose reply counts, and when a round is complete.

The loop is ours because Flower's `Strategy.start` cannot resume, knows no quorum and stops at one
bad reply. Replies are taken in the order of the sites' names, never of arrival: sums of floats
depend on their order, and a study must give the same bits twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from flwr.serverapp import Grid
from pydantic import BaseModel

from hymate.joining_protocol import DescribeRequest, PrepareReply, PrepareRequest, SiteDescription
from hymate.protocol import Action, RoundRequest, TrainReply
from hymate.scoring_protocol import EvaluateRequest
from hymate.secure_config import SecureAggregationConfig
from server.admission import Admission
from server.attendance import Attendance
from server.exchange import Clock, Exchange, Reply, Step
from server.failure import StudyFailure
from server.journal import Journal
from server.participation import ParticipationConfig
from server.roster import Roster
from server.sampling import Draw
from server.secure_round import SecretWork, SecureAttempt, Summed
from server.training_round import Folded, TrainingRound, addressed
from strategies.arrays import Weights
from strategies.base import Algorithm
from strategies.screening import LengthCheck
from strategies.wire import pack

Record = TypeVar("Record", bound=BaseModel)


class Federation:
    """The sites of one run, and every exchange with them.

    A site that has not described itself or not agreed to the vocabulary (it joins late, comes back, or
    failed since) is asked to do so first, in the same exchange.
    """

    def __init__(
        self,
        grid: Grid,
        rules: ParticipationConfig,
        journal: Journal,
        expected: int,
        describe: DescribeRequest,
        identities: Mapping[int, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.roster = Roster(rules, expected, identities)
        self._grid = grid
        self._rules = rules
        self._journal = journal
        self._clock = clock or Clock()
        self._exchange = Exchange(grid, rules, journal, self.roster, self._clock)
        self._admission = Admission(describe, self.roster)
        self.attendance = Attendance(grid, rules, journal, self.roster, self._clock)
        unknown = sorted(set(rules.required) - set((identities or {}).values()))
        if identities and unknown:
            raise StudyFailure(f"participation.required names '{unknown[0]}', which is no site of the study")
        rules.demand_enough(self.roster.expected)

    @property
    def descriptions(self) -> list[SiteDescription]:
        """What the sites said they hold, by name; one that comes back later is added."""
        found = (standing.description for standing in self.roster.standings.values())
        return [description for description in found if description is not None]

    @property
    def prepared(self) -> dict[str, PrepareReply]:
        """How each site's store came out."""
        return {
            name: standing.prepared
            for name, standing in self.roster.standings.items()
            if standing.prepared is not None
        }

    def among(self, sites: Collection[str], journal: Journal) -> Federation:
        """A federation of some of the sites, as if there were no others.

        It knows what they said they hold; what they agreed to, trained and failed in is not carried over.
        """
        self._learn_names()
        nodes = {node: name for node, name in self.roster.names.items() if name in sites}
        rules = self._rules.among(nodes.values()).model_copy(
            update={"pause_minutes": self.attendance.pause_minutes}
        )
        few = Federation(self._grid, rules, journal, len(nodes), self._admission.describe, nodes, self._clock)
        for node in nodes:
            few.roster.of(node).description = self.roster.of(node).description
        return few

    def join(self) -> None:
        """Learn the sites' names and what they hold."""
        self._gather("describe", 0, self._admission.describing)

    def freeze(self, request: PrepareRequest) -> None:
        """From here on a site takes part once it has agreed to this vocabulary."""
        self._admission.freeze(request)

    def agree(self) -> None:
        """Have every site make its store under the frozen vocabulary."""
        self._gather("prepare", 0, self._admission.preparing)

    def ask(
        self,
        action: Action,
        request: BaseModel,
        kind: type[Record],
        weights: Weights | None = None,
        fault_of: Callable[[Record], str | None] = lambda record: None,
    ) -> list[Reply[Record]]:
        """The same request to every site; valid replies by site name.

        A site that is scored is told up to which round of fine-tuning it counted. `fault_of` says what is
        wrong with a reply, if anything.
        """
        content = pack(request, weights)

        def step_for(node: int) -> Step:
            own = content
            if isinstance(request, EvaluateRequest):
                own = addressed(content, request, "finetune", self.roster.of(node))
            return Step(
                action,
                own,
                kind,
                lambda reply: self._admission.is_itself(node, reply) or fault_of(reply.record),
            )

        return self._gather(action.value.split(".")[1], 0, step_for)

    def train_round(
        self,
        algorithm: Algorithm,
        action: Action,
        request: RoundRequest,
        weights: Weights,
        lengths: LengthCheck,
    ) -> Folded:
        """One training round under `algorithm`: the next global weights, and what the sites said."""
        training = TrainingRound(algorithm, action, request, weights, lengths, self.roster)
        draw = self.draw(training.phase, request.round, request.seed, algorithm.fewest())

        def step_for(node: int) -> Step:
            def accept(reply: Reply[TrainReply]) -> str | None:
                return self._admission.is_itself(node, reply) or training.fault_of(reply)

            content = training.content_for(self.roster.of(node))
            return Step(action, content, TrainReply, accept, weight=training.weight, taken=True)

        replies = self._gather(training.phase, request.round, step_for, training, draw)
        return training.fold(replies)

    def summed(self, work: SecretWork, config: SecureAggregationConfig, draw: Draw | None = None) -> Summed:
        """One sum in secret; where too few sites are left at some stage, it begins anew, with new keys.

        Raises `StudyFailure` where the last try fails.
        """
        phase = work.action.value.split(".")[1]
        draw = draw or Draw(self._rules, self.roster.expected, phase)
        asked: set[int] = set()

        def stage(
            name: str,
            nodes: Iterable[int],
            step_for: Callable[[int], Step],
            enough: Callable[[set[int]], bool],
        ) -> dict[int, Reply[Any]]:
            def itself(node: int) -> Step:
                step = step_for(node)
                return replace(
                    step, accept=lambda reply: self._admission.is_itself(node, reply) or step.accept(reply)
                )

            called = f"{phase} {name}".rstrip()
            ending = self._exchange.run(
                called, draw.number, nodes, lambda node: self._admission.next_step(node, itself), enough
            )
            return ending.replies

        cause = ""
        for attempt in range(1, self._rules.attempts + 1):
            nodes = self._to_ask(draw, (), (), again=attempt > 1)
            asked |= set(nodes)
            self._journal.metric(phase, "asked", sites=len(nodes), server_round=draw.number)
            found = SecureAttempt(work, config, draw, self.roster, stage).run(nodes)
            if isinstance(found, Summed):
                sites = {reply.site for reply in found.replies}
                for node in asked:
                    self.roster.settle(node, self.roster.label(node) in sites)
                return found
            cause = f"{self._cause(draw, found.sites)}; {found.reason}"
            if attempt < self._rules.attempts:
                self.attendance.pause(phase, draw.number, attempt, cause)
        raise StudyFailure(cause)

    def draw(self, phase: str, number: int, seed: int, least: int = 1) -> Draw:
        """Which sites train in a round."""
        return Draw(self._rules, self.roster.expected, phase, number, seed, least)

    def _gather(
        self,
        phase: str,
        server_round: int,
        step_for: Callable[[int], Step],
        training: TrainingRound | None = None,
        draw: Draw | None = None,
    ) -> list[Reply[Any]]:
        """Usable replies of enough sites, by name; below quorum it pauses and tries again, up to a bound.

        Raises `StudyFailure` where the last try is still below quorum.
        """
        draw = draw or Draw(self._rules, self.roster.expected, phase)
        usable: dict[int, Reply[Any]] = {}
        barred: set[int] = set()
        asked: set[int] = set()

        def complete(more: Collection[int] = ()) -> bool:
            return draw.enough({self.roster.label(node) for node in {*usable, *more}})

        for attempt in range(1, self._rules.attempts + 1):
            nodes = self._to_ask(draw, usable, barred, again=attempt > 1)
            asked |= set(nodes)
            self._journal.metric(phase, "asked", sites=len(nodes), server_round=server_round)
            ending = self._exchange.run(
                phase, server_round, nodes, lambda node: self._admission.next_step(node, step_for), complete
            )
            usable |= ending.replies
            barred |= ending.barred
            if training is not None and complete():
                faults = training.too_long(self._in_order(usable))
                for node in [node for node, reply in usable.items() if reply.site in faults]:
                    reply = usable.pop(node)
                    barred.add(node)
                    self._journal.participation(
                        phase,
                        server_round,
                        reply.site,
                        "quarantined",
                        reason=faults[reply.site],
                        weight=training.weight(reply.site),
                    )
            if complete():
                for node in asked:
                    self.roster.settle(node, node in usable)
                return self._in_order(usable)
            if len(usable) + len(barred) >= self.roster.expected:
                break  # nobody is left to ask
            if attempt < self._rules.attempts:
                self.attendance.pause(phase, server_round, attempt, self._cause(draw, len(usable)))
        raise StudyFailure(self._cause(draw, len(usable)))

    def _in_order(self, replies: Mapping[int, Reply[Any]]) -> list[Reply[Any]]:
        return [replies[node] for node in sorted(replies, key=self.roster.label)]

    def _to_ask(
        self, draw: Draw, usable: Collection[int], barred: Collection[int], *, again: bool
    ) -> list[int]:
        if draw.samples:
            self._learn_names()
        return self.attendance.to_ask(draw, usable, barred, again=again)

    def _learn_names(self) -> None:
        """Sites are drawn by name, and a simulated one that was started again has not said its own yet."""
        present = self.roster.members(self._grid.get_node_ids())
        strangers = [node for node in present if not self.roster.named(node)]
        if strangers:
            self._exchange.run("describe", 0, strangers, self._admission.describing, lambda answered: True)

    def _cause(self, draw: Draw, usable: int) -> str:
        where = f"{draw.phase} round {draw.number}" if draw.number else draw.phase
        sites = f"{draw.size} sites" + (" drawn" if draw.samples else "")
        needed = f"{draw.needed} are needed"
        if self._rules.required:
            needed += f", and {', '.join(self._rules.required)} among them"
        return (
            f"{where}: {usable} of {sites} gave a usable reply, {needed}; "
            f"{self._journal.last_trouble or 'participation.jsonl says why'}"
        )
