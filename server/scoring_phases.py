"""The phases that score: the federated model, and each site's own for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hymate.data.vocabulary import Vocabulary
from hymate.protocol import Action, AloneReply, AloneRequest
from hymate.score_reports import Detail, ScoreReport
from hymate.scoring_protocol import EvaluateReply, EvaluateRequest, KeptScores, ModelKind
from server.detail import agreed_detail
from server.pooled import PooledFigures, pooled_figures
from server.run import Finetuned, Run
from server.secure_phases import summed_reports
from server.training_round import without_noise
from strategies.arrays import Weights
from strategies.registry import is_personal
from strategies.wire import unpack_weights


def evaluate(run: Run, vocabulary: Vocabulary, tuned: Finetuned) -> dict[str, ScoreReport]:
    """Every site's report on its held-out stays, between edges and at a threshold fixed on tuning stays."""
    detail = agreed_detail(run.study, tuned.tuning)
    request = EvaluateRequest(
        **scoring(run, vocabulary, "held_out", tuned.best_round, detail),
        keep=KeptScores(run=run.id, kind="federated"),
    )
    return asked_once(run, "evaluate", lambda: reports_on(run, request, tuned.weights))


def score_whole(
    run: Run, vocabulary: Vocabulary, weights: Weights, detail: Detail, kind: ModelKind | None = None
) -> dict[str, ScoreReport]:
    """Every site's report on its held-out stays under weights that are the same whole model at all of them.

    Args:
        kind: the name under which sites keep the scores for comparison; None: they do not.
    """
    request = EvaluateRequest(
        **run.training(vocabulary),
        split="held_out",
        detail=without_groups(detail),
        noise_multiplier=run.study.evaluation_noise,
        keep=None if kind is None else KeptScores(run=run.id, kind=kind),
    )
    return reports_on(run, request, weights)


def reports_on(run: Run, request: EvaluateRequest, weights: Weights) -> dict[str, ScoreReport]:
    """What the sites answer, by name; where the study sums reports, that of all together."""
    if run.study.sums_reports:
        return summed_reports(run, request, weights)

    def fault_of(record: EvaluateReply) -> str | None:
        return None if request.noise_multiplier is None else without_noise(record.report)

    replies = run.federation.ask(Action.EVALUATE, request, EvaluateReply, weights, fault_of)
    return {reply.site: reply.record.report for reply in replies}


def asked_once(run: Run, phase: str, ask: Callable[[], dict[str, ScoreReport]]) -> dict[str, ScoreReport]:
    """What `ask` found, now or before the study broke off."""
    saved = run.checkpoints.latest(phase)
    if saved is not None:
        return {site: ScoreReport.model_validate(report) for site, report in saved.facts.items()}
    reports = ask()
    run.complete(phase, 0, {site: report.model_dump(mode="json") for site, report in reports.items()})
    return reports


def without_groups(detail: Detail) -> Detail:
    """The same edges and threshold, for figures of the whole alone."""
    return detail.model_copy(update={"groups": (), "pairs": ()})


@dataclass(frozen=True)
class OwnModels:
    """Each site's model trained on its stays alone: what it told of it, and those that it let go."""

    replies: Mapping[str, AloneReply]
    weights: Mapping[str, Weights]


def train_alone(run: Run, vocabulary: Vocabulary, weights: Weights, detail: Detail) -> OwnModels:
    """Every site's own model, for comparison: its figures and, where study and site want it, its weights."""
    saved = run.checkpoints.latest("alone")
    if saved is not None:
        told = {site: AloneReply.model_validate(reply) for site, reply in saved.facts.items()}
        return OwnModels(told, _by_site(saved.weights))
    request = AloneRequest(
        **run.training(vocabulary),
        pretrain=run.study.pretrain,
        finetune=run.study.finetune,
        detail=without_groups(detail),
        share=run.study.evaluation.cross_site_matrix,
    )
    replies = run.federation.ask(Action.ALONE, request, AloneReply, weights)
    told = {reply.site: reply.record for reply in replies}
    models = {
        f"{reply.site}/{name}": array
        for reply in replies
        for name, array in unpack_weights(reply.content).items()
    }
    facts = {site: record.model_dump(mode="json") for site, record in told.items()}
    run.complete("alone", 0, facts, weights=models)
    return OwnModels(told, _by_site(models))


def _by_site(models: Weights) -> dict[str, Weights]:
    """Arrays named `site/array` as a model for each site."""
    found: dict[str, dict[str, Any]] = {}
    for name, array in models.items():
        site, _, own = name.partition("/")
        found.setdefault(site, {})[own] = array
    return dict(found)


def scoring(
    run: Run, vocabulary: Vocabulary, split: str, server_round: int, detail: Detail | None
) -> dict[str, Any]:
    """The fields of `scoring_protocol.EvaluateRequest`."""
    strategy = run.study.strategy.of("finetune")
    return {
        **run.training(vocabulary),
        "split": split,
        "detail": detail,
        "personal": strategy if is_personal(strategy) else None,
        "round": server_round,
        "noise_multiplier": run.study.evaluation_noise,
    }


def tuning_figures(run: Run, vocabulary: Vocabulary, weights: Weights, server_round: int) -> PooledFigures:
    """All sites' tuning stays under these weights, which `server_round` of fine-tuning ended with; where
    sites have weights of their own, under theirs."""
    request = EvaluateRequest(**scoring(run, vocabulary, "tuning", server_round, None))
    return pooled_figures([*reports_on(run, request, weights).values()])
