"""How well a model does on the site's own stays, said in counts that may leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.group_reports import barriers, own_fit, told_groups
from client.kept_scores import keep_scores
from client.policy import publishable
from client.site import Policy, SiteConfig
from hymate.data.store import TripletStore
from hymate.errors import SAME_RELEASE, InputFault
from hymate.evaluate.delong import auroc_and_variance
from hymate.evaluate.edges import first_edges
from hymate.evaluate.group_cells import Scored
from hymate.evaluate.histograms import count_between, join_small_cells
from hymate.evaluate.metrics import auroc, average_precision, sums_over
from hymate.evaluate.recalibration import STEEPEST, log_odds, sums_at
from hymate.model.hymate import HyMaTE
from hymate.score_reports import Cells, Detail, ScoreReport
from hymate.scoring_protocol import (
    EvaluateReply,
    EvaluateRequest,
    KeptScores,
    RecalibrateReply,
    RecalibrateRequest,
)
from hymate.train.scoring import labelled, score

Floats = NDArray[np.float64]
PARTS = {"development": ("train", "tuning")}
"""Splits that go by one name."""


@dataclass(frozen=True, eq=False)
class ScoredSplit:
    """A split's labelled stays: labels, scores and the people they are of, (n,), and who is in which group.

    `store` and `rows`, (n,), say where their static codes are.
    """

    labels: Floats
    scores: Floats
    store: TripletStore
    rows: NDArray[np.int64]

    @property
    def subjects(self) -> NDArray[np.int64]:
        return self.store.subject_id[self.rows]


def rows_of(store: TripletStore, split: str) -> NDArray[np.int64]:
    """The labelled stays of a split, in their order."""
    return np.sort(np.concatenate([labelled(store, part) for part in PARTS.get(split, (split,))]))


def scored_split(
    model: HyMaTE, store: TripletStore, split: str, policy: Policy, batch_size: int = 64
) -> ScoredSplit | ScoreReport:
    """The stays and their scores; where a class is too small to name, the report that says no more."""
    rows = rows_of(store, split)
    labels = store.label[rows].astype(np.float64)
    positives = int(labels.sum())
    nameable = publishable(positives, policy), publishable(labels.size - positives, policy)
    if labels.size == 0 or None in nameable:
        return ScoreReport(n=publishable(labels.size, policy), positives=None)
    return ScoredSplit(labels, score(model, store, rows, batch_size), store, rows)


def report_on(
    model: HyMaTE,
    store: TripletStore,
    split: str,
    policy: Policy,
    batch_size: int = 64,
    detail: Detail | None = None,
) -> ScoreReport:
    """Score a split's labelled stays. Where a class is too small to name, only the total is sent."""
    found = scored_split(model, store, split, policy, batch_size)
    return found if isinstance(found, ScoreReport) else report_of(found, policy, detail)


def report_of(found: ScoredSplit, policy: Policy, detail: Detail | None) -> ScoreReport:
    """What may be said of stays whose classes may both be named."""
    labels, scores = found.labels, found.scores
    counted = count_between(labels, scores, first_edges() if detail is None else np.array(detail.edges))
    cells = join_small_cells(counted, policy.min_cell, () if detail is None else barriers(detail))
    assert cells is not None  # all stays together are large enough
    sums = sums_over(labels, scores)
    report = ScoreReport(
        n=labels.size,
        positives=int(labels.sum()),
        auroc=auroc(labels, scores),
        auprc=average_precision(labels, scores),
        log_loss_sum=sums["log_loss_sum"],
        squared_error_sum=sums["squared_error_sum"],
        cells=Cells.of(cells, sums=detail is not None),
    )
    if detail is None:
        return report
    certain = auroc_and_variance(labels, scores, found.subjects)
    scored = Scored(labels, scores, cells, np.searchsorted(detail.edges, scores, side="right"))
    groups = told_groups(scored, found.store, found.rows, policy, detail)
    return report.model_copy(
        update={
            **sums,
            "auroc_variance": None if certain is None else certain[1],
            "own_fit": own_fit(labels, scores),
            "groups": groups.reports,
            "held_back": tuple(groups.held_back),
        }
    )


def evaluate(site: SiteConfig, request: EvaluateRequest, model: HyMaTE, store: TripletStore) -> EvaluateReply:
    """Report on one split under the weights just received.

    Raises:
        InputFault: it is that of the stays a site trains on, under a model that it may have been trained on.
    """
    if request.split == "development" and request.left_out != site.name:
        raise InputFault(
            f"site {site.name}",
            "scores its training stays only under a model that left it out",
            "ask for held-out stays",
        )
    if request.noise_multiplier is None:
        found = scored_split(model, store, request.split, site.policy, request.batch_size)
        report = told_and_kept(site, request.study, found, request.detail, request.keep)
    else:
        from client.noisy_figures import noisy_report  # Opacus is imported where noise is asked for

        report = noisy_report(site, request, request.split, request.noise_multiplier, model, store)
    return EvaluateReply(site=site.name, split=request.split, report=report)


def told_and_kept(
    site: SiteConfig,
    study: str,
    found: ScoredSplit | ScoreReport,
    detail: Detail | None,
    keep: KeptScores | None,
) -> ScoreReport:
    """The report; scores that may be compared with another model's later are kept."""
    if isinstance(found, ScoreReport):
        return found
    if keep is not None:
        keep_scores(site, study, keep, found)
    return report_of(found, site.policy, detail)


def recalibrate(
    site: SiteConfig, request: RecalibrateRequest, model: HyMaTE, store: TripletStore
) -> RecalibrateReply:
    """Sums for one step of Newton's method, over all stays and over the groups that may be told.

    Raises:
        InputFault: a point so steep that its sums would count the stays above one score.
    """
    if any(max(abs(a), abs(b)) > STEEPEST for points in request.points.values() for a, b in points):
        raise InputFault(
            f"site {site.name}",
            f"gives no sums for a recalibration steeper than {STEEPEST:g}",
            SAME_RELEASE,
        )
    found = scored_split(model, store, request.split, site.policy, request.batch_size)
    detail = request.detail
    if isinstance(found, ScoreReport) or detail is None:
        return RecalibrateReply(site=site.name, sums={})
    return RecalibrateReply(site=site.name, sums=sums_of(found, site.policy, detail, request.points))


def sums_of(
    found: ScoredSplit, policy: Policy, detail: Detail, points: dict[str, list[tuple[float, float]]]
) -> dict[str, list[tuple[float, float, float, float, float, float]]]:
    """The sums at the points of each group that may be told; "" is all stays."""
    labels, scores = found.labels, found.scores
    cells = join_small_cells(
        count_between(labels, scores, np.array(detail.edges)), policy.min_cell, barriers(detail)
    )
    assert cells is not None  # all stays together are large enough
    scored = Scored(labels, scores, cells, np.searchsorted(detail.edges, scores, side="right"))
    groups = told_groups(scored, found.store, found.rows, policy, detail)
    members = {"": np.ones(len(labels), bool), **groups.members}
    x = log_odds(scores)
    sums = {}
    for name, wanted in points.items():
        if name in members:
            who = members[name]
            each = [sums_at(labels[who], x[who], point) for point in wanted]
            sums[name] = [(s.likelihood, *s.gradient, *s.information) for s in each]
    return sums


def arrays_of(model: HyMaTE) -> dict[str, NDArray[np.generic]]:
    """The model's weights as arrays."""
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
