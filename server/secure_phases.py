"""Rounds and evaluations of a study with `secure_aggregation:`, as sums in secret.

Algorithms see one update, the weighted mean of all sites', which is all that those allowed need to know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from hymate.evaluate.histograms import BINS
from hymate.evaluate.noisy_cells import norm
from hymate.protocol import Action, RoundRequest
from hymate.score_reports import ScoreReport
from hymate.scoring_protocol import EvaluateRequest
from server.failure import StudyFailure
from server.roster import Roster
from server.run import Run
from server.secure_round import SecretWork
from server.training_round import Folded, array_bytes, undeclared
from strategies.arrays import Weights
from strategies.base import Algorithm, Arrays, Round, Update
from strategies.local_layers import local_names
from strategies.screening import LengthCheck
from strategies.secure.contents import round_of, sizes, summed_report
from strategies.secure.ring import OutOfBounds
from strategies.weighting import weight_of
from strategies.wire import with_beside

ALL_SITES = "all sites"
"""In place of a site's name; no site can have this one."""


def train_round(
    run: Run,
    algorithm: Algorithm,
    action: Action,
    request: RoundRequest,
    weights: Weights,
    lengths: LengthCheck,
) -> Folded:
    """One training round under `algorithm`, summed in secret where the study wants that."""
    config, federation = run.study.secure_aggregation, run.federation
    if config is None:
        return federation.train_round(algorithm, action, request, weights, lengths)
    phase = action.value.split(".")[1]
    draw = federation.draw(phase, request.round, request.seed, algorithm.fewest())
    local = local_names(request.strategy.local_layers, weights.keys())
    shared: Arrays = {name: np.asarray(array) for name, array in weights.items() if name not in local}
    scores = "none"
    if phase == "finetune" and not draw.samples:
        scores = "summed" if config.histograms else "told"
    bins = BINS if scores == "summed" else 0
    work = SecretWork(
        action=action,
        request=request,
        arrays=with_beside(weights, algorithm.beside()),
        scores=scores,
        expected=sizes(shared, config.bits, bins),
        weight_of=lambda site: _weight(federation.roster, request, site),
        tells_weight=request.privacy.mode != "none",
        fault_of=lambda reply: undeclared(request.privacy, reply),
    )
    summed = federation.summed(work, config, draw)
    with _usable(f"{phase} round {request.round}"):
        found = round_of(summed.total, shared, summed.rings, bins)
    one = Update(found.shared, found.weight, ALL_SITES)
    next_shared = algorithm.aggregate(Round(request.round, federation.roster.expected), shared, [one])
    records = [reply.record for reply in summed.replies]
    for record in records:
        federation.roster.counted(record.site, phase, request.round)
        federation.roster.noised(record.site, phase, record.noise, record.spent)
    return Folded(
        weights={name: next_shared.get(name, array) for name, array in weights.items()},
        loss=found.loss,
        forecast_error=found.forecast_error,
        reports=[found.received] if bins else [record.received for record in records],
        slowest_s=max(record.seconds for record in records),
        training_s=sum(record.seconds for record in records),
        bytes_down=sum(array.nbytes for array in work.arrays.values()) * len(records),
        bytes_up=sum(array_bytes(reply.content) for reply in summed.replies),
    )


def summed_reports(run: Run, request: EvaluateRequest, weights: Weights) -> dict[str, ScoreReport]:
    """The report of all sites together, under `ALL_SITES`."""
    config = run.study.secure_aggregation
    assert config is not None  # nobody else calls
    bins = BINS if request.detail is None else len(request.detail.edges) + 1
    work = SecretWork(
        action=Action.EVALUATE,
        request=request,
        arrays=weights,
        scores="summed",
        expected=sizes(None, config.bits, bins),
    )
    summed = run.federation.summed(work, config)
    with _usable(request.split):
        report = summed_report(summed.total, summed.rings.sites, bins)
    if request.noise_multiplier is not None:  # each site's own; there are no groups in a sum
        deviation = request.noise_multiplier * norm(0) * math.sqrt(len(summed.replies))
        report = report.model_copy(update={"deviation": deviation})
    return {ALL_SITES: report}


@contextmanager
def _usable(where: str) -> Iterator[None]:
    """A sum that some site has spoilt ends the study: nobody can say which."""
    try:
        yield
    except OutOfBounds as fault:
        raise StudyFailure(f"{where}: the sum of all sites cannot be used: {fault}") from None


def _weight(roster: Roster, request: RoundRequest, site: str) -> float:
    """How much a site counts by what it said it holds."""
    description = roster.description(site)
    assert description is not None  # it was introduced before it took part
    counts = description.splits["train"]
    return weight_of(request.strategy, site, counts.stays or 1, counts.positives)
