"""The phases that score: the federated model, and each site's own for comparison."""

from __future__ import annotations

from typing import Any

from hymate.data.vocabulary import Vocabulary
from hymate.protocol import (
    Action,
    AloneReply,
    AloneRequest,
    Detail,
    EvaluateReply,
    EvaluateRequest,
    ScoreReport,
)
from server.detail import agreed_detail
from server.exchange import Reply
from server.pooled import PooledFigures, pooled_figures
from server.run import Finetuned, Run, Weights
from strategies.registry import is_personal


def evaluate(run: Run, vocabulary: Vocabulary, tuned: Finetuned) -> dict[str, ScoreReport]:
    """Every site's report on its held-out stays, between edges and at a threshold fixed on tuning stays."""
    saved = run.checkpoints.latest("evaluate")
    if saved is not None:
        return {site: ScoreReport.model_validate(report) for site, report in saved.facts.items()}
    reports = {
        reply.site: reply.record.report
        for reply in score(
            run,
            vocabulary,
            tuned.weights,
            "held_out",
            tuned.best_round,
            agreed_detail(run.study, tuned.tuning),
        )
    }
    run.complete("evaluate", 0, {site: report.model_dump(mode="json") for site, report in reports.items()})
    return reports


def train_alone(run: Run, vocabulary: Vocabulary, weights: Weights) -> dict[str, AloneReply]:
    """Every site's own model, for comparison; only its figures come back."""
    saved = run.checkpoints.latest("alone")
    if saved is not None:
        return {site: AloneReply.model_validate(reply) for site, reply in saved.facts.items()}
    request = AloneRequest(
        **run.training(vocabulary),
        pretrain=run.study.pretrain,
        finetune=run.study.finetune,
    )
    replies = run.federation.ask(Action.ALONE, request, AloneReply, weights)
    alone = {reply.site: reply.record for reply in replies}
    run.complete("alone", 0, {site: record.model_dump(mode="json") for site, record in alone.items()})
    return alone


def score(
    run: Run,
    vocabulary: Vocabulary,
    weights: Weights,
    split: str,
    server_round: int,
    detail: Detail | None = None,
) -> list[Reply[EvaluateReply]]:
    """Every site's report on one split under these weights, which `server_round` of fine-tuning ended with;
    where sites have weights of their own, under theirs."""
    request = EvaluateRequest(**scoring(run, vocabulary, split, server_round, detail))
    return run.federation.ask(Action.EVALUATE, request, EvaluateReply, weights)


def scoring(
    run: Run, vocabulary: Vocabulary, split: str, server_round: int, detail: Detail | None
) -> dict[str, Any]:
    """The fields of `protocol.EvaluateRequest`."""
    strategy = run.study.strategy.of("finetune")
    return {
        **run.training(vocabulary),
        "split": split,
        "detail": detail,
        "personal": strategy if is_personal(strategy) else None,
        "round": server_round,
    }


def tuning_figures(run: Run, vocabulary: Vocabulary, weights: Weights, server_round: int) -> PooledFigures:
    """All sites' tuning stays under these weights."""
    replies = score(run, vocabulary, weights, "tuning", server_round)
    return pooled_figures([reply.record.report for reply in replies])
