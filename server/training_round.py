"""One round of training under a strategy: what each site is sent, what its reply must be, what comes of all.

Everything an algorithm need not know is done here: layers that stay at the sites, weights of the sites,
compression, and the checks before anything is folded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict

from hymate.privacy_config import PrivacyConfig
from hymate.protocol import Action, Declaration, GoingOn, MaskedReply, RoundRequest, TrainReply
from hymate.score_reports import ScoreReport
from server.exchange import Reply
from server.held_updates import HeldUpdates
from server.roster import Roster, Standing
from strategies.arrays import Weights
from strategies.base import Algorithm, Arrays, Round, Update
from strategies.compression import restored
from strategies.local_layers import local_names
from strategies.running_mean import RunningMean
from strategies.screening import LengthCheck, Lengths, fault_of, length, whole_length
from strategies.weighting import weight_of
from strategies.wire import ARRAYS, CONFIG, apart, pack, unpack_weights, with_beside


@dataclass(frozen=True)
class Folded:
    """What a round came to."""

    weights: Weights
    loss: float | None
    """Mean over training stays; None: no site told it."""
    forecast_error: float | None
    """The same of the weights received, forecasting on tuning stays."""
    reports: Sequence[ScoreReport | None]
    """How the weights received score on tuning stays."""
    slowest_s: float
    training_s: float
    """All sites' seconds of training together."""
    bytes_down: int
    """Of the arrays sent to all sites of the round, before Flower's own headers ..."""
    bytes_up: int
    """... and of those that came back and count."""


def addressed(content: RecordDict, request: GoingOn, phase: str, standing: Standing) -> RecordDict:
    """The same content, and up to which round the replies of this very site counted."""
    counted = {"folded": standing.folded.get(phase, 0), "pretrained": standing.folded.get("pretrain", 0)}
    config = content.config_records[CONFIG].copy()
    config["json"] = request.model_copy(update=counted).model_dump_json()
    return RecordDict({**content, CONFIG: config})


class TrainingRound:
    """A round on its way."""

    def __init__(
        self,
        algorithm: Algorithm,
        action: Action,
        request: RoundRequest,
        weights: Weights,
        lengths: LengthCheck,
        roster: Roster,
    ) -> None:
        self.action = action
        self.phase = action.value.split(".")[1]
        self._algorithm, self._request, self._weights = algorithm, request, weights
        self._length_check, self._roster = lengths, roster
        local = local_names(request.strategy.local_layers, weights.keys())
        self._shared: Arrays = {
            name: np.asarray(array) for name, array in weights.items() if name not in local
        }
        self._content = pack(request, with_beside(weights, algorithm.beside()))
        self._running = RunningMean() if algorithm.of_the_mean else None
        self._held = HeldUpdates()
        """Updates that may yet be too long to become part of the running mean."""
        self._kept: dict[str, Update] = {}
        """All, where the algorithm needs them one by one."""
        self._weights_of: dict[str, float] = {}
        self._lengths: dict[str, Lengths] = {}
        self._bytes: dict[str, int] = {}

    @property
    def number(self) -> int:
        return self._request.round

    def content_for(self, standing: Standing) -> RecordDict:
        """What this site is sent: all the same arrays, and the round up to which it counted."""
        return addressed(self._content, self._request, self.phase, standing)

    def fault_of(self, reply: Reply[TrainReply]) -> str | None:
        """What is wrong with a reply, if anything; else its update is taken.

        Raises `InputFault` where its arrays cannot be read, or its site has no weight.
        """
        algorithm, record = self._algorithm, reply.record
        if wrong := self._not_as_asked(record):
            return wrong
        stays = self.stays(reply)
        steps = self._nominal_steps(reply) if record.steps is None else record.steps
        sent, beside = apart(unpack_weights(reply.content))
        arrays = restored(self._request.strategy.compression, sent, self._shared)
        fault = fault_of(arrays, self._shared, stays)
        if fault is None and steps < 1:
            fault = f"says that it took {steps} steps"
        if fault is None and (wrong := fault_of(beside, algorithm.beside_expected(self._shared), 1.0)):
            fault = f"beside its weights: {wrong}"
        strange = sorted(
            name
            for name, value in record.facts.items()
            if name not in algorithm.facts_expected() or not math.isfinite(value)
        )
        if fault is None and strange:
            fault = f"its fact '{strange[0]}' is unknown, or not finite"
        missing = sorted(algorithm.facts_needed() - set(record.facts))
        if fault is None and missing:
            fault = f"lacks the fact '{missing[0]}', which {algorithm.name} needs"
        if fault is None:
            weight = weight_of(self._request.strategy, reply.site, stays, self._positives(reply.site))
            lengths = Lengths(length(arrays, self._shared, steps), whole_length(beside))
            self._weights_of[reply.site], self._lengths[reply.site] = weight, lengths
            self._bytes[reply.site] = array_bytes(reply.content)
            if self._running is None:
                self._kept[reply.site] = Update(arrays, weight, reply.site, steps, beside, record.facts)
            elif self._length_check.usual(lengths):
                self._running.add(arrays, weight)
            else:
                self._held.hold(reply.site, arrays)
        return fault

    def weight(self, site: str) -> float | None:
        """How much a site counts, once its update was taken."""
        return self._weights_of.get(site)

    def too_long(self, replies: Sequence[Reply[TrainReply]]) -> dict[str, str]:
        """Site -> what is wrong with the length of its update."""
        return self._length_check.faults({reply.site: self._lengths[reply.site] for reply in replies})

    def fold(self, replies: Sequence[Reply[TrainReply]]) -> Folded:
        """The next global weights out of these replies, in their order; what is no shared layer stays."""
        self._length_check.remember(self._lengths[reply.site] for reply in replies)
        updates = self._updates([reply.site for reply in replies])
        next_shared = self._algorithm.aggregate(
            Round(self.number, self._roster.expected), self._shared, updates
        )
        for reply in replies:
            self._roster.counted(reply.site, self.phase, self.number)
            self._roster.noised(reply.site, self.phase, reply.record.noise, reply.record.spent)
        return Folded(
            weights={name: next_shared.get(name, array) for name, array in self._weights.items()},
            loss=_mean([(reply.record.loss, self.stays(reply)) for reply in replies]),
            forecast_error=_mean([(reply.record.received_error, self.stays(reply)) for reply in replies]),
            reports=[reply.record.received for reply in replies],
            slowest_s=max(reply.record.seconds for reply in replies),
            training_s=sum(reply.record.seconds for reply in replies),
            bytes_down=array_bytes(self._content) * len(replies),
            bytes_up=sum(self._bytes[reply.site] for reply in replies),
        )

    def _updates(self, sites: list[str]) -> list[Update]:
        """What the algorithm is told: these sites' updates or, where it needs no more, their mean."""
        if self._running is None:
            return [self._kept[site] for site in sites]
        for site, arrays in self._held.among(sites):
            self._running.add(arrays, self._weights_of[site])
        self._held.close()
        return [Update(self._running.mean(), self._running.weight)]

    def _not_as_asked(self, record: TrainReply) -> str | None:
        """Whether the round took the noise that was asked for: an update without never counts."""
        if fault := undeclared(self._request.privacy, record):
            return fault
        noisy = record.noise is not None
        raw = [name for name in ("stays", "loss", "steps") if getattr(record, name) is not None]
        raw += ["facts"] if record.facts else []
        if noisy and raw:
            return f"tells its {raw[0]}, which no noise covers"
        if not noisy and (lacks := {"stays", "loss", "steps"} - set(raw)):
            return f"lacks its {min(lacks)}"
        return None

    def stays(self, reply: Reply[TrainReply]) -> int:
        """Training stays of a site: as it says with its update or, of one with noise, as it said before."""
        if reply.record.stays is not None:
            return reply.record.stays
        description = self._roster.description(reply.site)
        return (description.splits["train"].stays if description else None) or 1

    def _nominal_steps(self, reply: Reply[TrainReply]) -> int:
        """About as many as a site with so many stays takes: only how long its update is depends on it."""
        phase = getattr(self._request, self.phase)
        return int(phase.local_epochs * math.ceil(self.stays(reply) / phase.batch_size))

    def _positives(self, site: str) -> int | None:
        description = self._roster.description(site)
        return None if description is None else description.splits["train"].positives


def undeclared(privacy: PrivacyConfig, record: TrainReply | MaskedReply) -> str | None:
    """What is wrong with what a site says of its noise, if anything."""
    wanted, noise = Declaration.of(privacy), record.noise
    if noise == wanted:
        return without_noise(record.received) if privacy.dp_statistics else None
    if wanted is None:
        return "declares noise, and the study takes none"
    said = "other noise than the study's" if noise else "no noise"
    return f"declares {said}: only updates with the study's own noise count"


def without_noise(report: ScoreReport | None) -> str | None:
    """What is wrong with a report of which the study asks that it has noise, if anything."""
    if report is None or report.deviation is not None:
        return None
    return "declares no noise of its figures: only figures with the study's own noise count"


def array_bytes(content: RecordDict) -> int:
    """Of a message's arrays."""
    return sum(len(array.data) for array in content.array_records[ARRAYS].values())


def _mean(values: list[tuple[float | None, int]]) -> float | None:
    """Mean over stays; None where no site had the figure."""
    known = [(value, weight) for value, weight in values if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
