"""The phases of a study, each a function of what the phases before it agreed.

describe -> vocabulary -> pretrain -> fine-tune -> evaluate -> report
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hymate.data.statistics import SiteStatistics
from hymate.data.vocabulary import Vocabulary, build_vocabulary, mapping_lines
from hymate.model.hymate import HyMaTE, build_model
from hymate.protocol import (
    Action,
    AloneReply,
    AloneRequest,
    EvaluateReply,
    EvaluateRequest,
    FinetuneRequest,
    PrepareReply,
    PrepareRequest,
    PretrainRequest,
    SiteDescription,
    StatisticsReply,
    StatisticsRequest,
)
from hymate.train.early_stopping import EarlyStopping
from server.checkpoint import Checkpoints
from server.journal import Journal
from server.pooled import PooledFigures, pooled_figures
from server.rounds import Federation, Reply
from server.study import StudyConfig
from strategies.registry import make_algorithm

Weights = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Run:
    """What every phase is given."""

    study: StudyConfig
    folder: Path
    federation: Federation
    journal: Journal


@dataclass(frozen=True)
class Finetuned:
    """The weights that did best on tuning, and the round they came from (0 = before fine-tuning)."""

    weights: Weights
    best_round: int
    rounds: int


@dataclass(frozen=True)
class Agreement:
    """The vocabulary, what each site had said of its codes, and how its store came out."""

    vocabulary: Vocabulary
    statistics: Mapping[str, SiteStatistics]
    prepared: Mapping[str, PrepareReply]


def agree_vocabulary(run: Run) -> Agreement:
    """Merge the sites' statistics, freeze the vocabulary, have every site make its store under it."""
    request = StatisticsRequest(task=run.study.task, mapping=mapping_lines(run.study.vocabulary))
    replies = run.federation.ask(Action.STATISTICS, request, StatisticsReply)
    statistics = {reply.site: SiteStatistics.from_json(reply.record.statistics) for reply in replies}
    vocabulary = build_vocabulary(statistics, run.study.vocabulary)
    vocabulary.save(run.folder / "vocabulary.json")
    prepared = run.federation.ask(
        Action.PREPARE,
        PrepareRequest(task=run.study.task, vocabulary=vocabulary.to_json(), vocabulary_hash=vocabulary.hash),
        PrepareReply,
    )
    run.journal.metric(
        "vocabulary", "frozen", codes=vocabulary.size, dropped=len(vocabulary.dropped), hash=vocabulary.hash
    )
    return Agreement(vocabulary, statistics, {reply.site: reply.record for reply in prepared})


def first_model(study: StudyConfig, vocabulary: Vocabulary) -> HyMaTE:
    """The model every run with this seed starts from."""
    return build_model(
        study.model,
        codes=vocabulary.size,
        static_width=vocabulary.static_width,
        time_scale_hours=study.task.lookback_hours,
        seed=study.seed,
    )


def weights_of(model: HyMaTE) -> Weights:
    """A copy of the model's weights: the model may change after."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def pretrain(run: Run, vocabulary: Vocabulary, weights: Weights, checkpoints: Checkpoints) -> Weights:
    """Masked forecasting over `pretrain.rounds` rounds."""
    study = run.study
    algorithm = make_algorithm(study.strategy.name, study.strategy.settings)
    for number in range(1, study.pretrain.rounds + 1):
        request = PretrainRequest(
            **_training(study, vocabulary),
            round=number,
            pretrain=study.pretrain,
            strategy=study.strategy,
        )
        weights, replies = run.federation.train_round(algorithm, Action.PRETRAIN, number, request, weights)
        checkpoints.save_round("pretrain", number, weights)
        run.journal.metric(
            "pretrain",
            "round",
            round=number,
            rounds=study.pretrain.rounds,
            loss=_mean([(reply.record.loss, reply.record.stays) for reply in replies]),
            forecast_error=_mean([(reply.record.received_error, reply.record.stays) for reply in replies]),
            slowest_s=max(reply.record.seconds for reply in replies),
        )
    return weights


def finetune(
    run: Run,
    vocabulary: Vocabulary,
    weights: Weights,
    descriptions: list[SiteDescription],
    checkpoints: Checkpoints,
) -> Finetuned:
    """Rounds on the label until tuning AUROC + average precision stops rising.

    Each reply reports on the weights the site *received*, so a round needs one message; the last
    round's weights are scored by one more exchange.
    """
    study = run.study
    algorithm = make_algorithm(study.strategy.name, study.strategy.settings)
    stopping = EarlyStopping(study.finetune.patience)
    best: Weights = weights
    best_round, done = 0, 0
    balance = positive_weight(descriptions)
    for number in range(1, study.finetune.rounds + 1):
        request = FinetuneRequest(
            **_training(study, vocabulary),
            round=number,
            finetune=study.finetune,
            positive_weight=balance,
            strategy=study.strategy,
        )
        received = weights
        weights, replies = run.federation.train_round(algorithm, Action.FINETUNE, number, request, weights)
        figures = pooled_figures([reply.record.received for reply in replies])
        improved = stopping.update(figures.criterion)
        if improved:
            best, best_round = received, number - 1
            checkpoints.save_best(best_round, best)
        run.journal.metric(
            "finetune",
            "round",
            round=number,
            rounds=study.finetune.rounds,
            loss=_mean([(reply.record.loss, reply.record.stays) for reply in replies]),
            slowest_s=max(reply.record.seconds for reply in replies),
            best=best_round,
            **_tuning(figures),
        )
        done = number
        if stopping.exhausted:
            return Finetuned(best, best_round, done)
        checkpoints.save_round("finetune", number, weights)
    last = pooled_figures([reply.record.report for reply in score(run, vocabulary, weights, "tuning")])
    run.journal.metric("finetune", "last", **_tuning(last))
    if stopping.update(last.criterion):
        best, best_round = weights, done
        checkpoints.save_best(best_round, best)
    return Finetuned(best, best_round, done)


def score(run: Run, vocabulary: Vocabulary, weights: Weights, split: str) -> list[Reply[EvaluateReply]]:
    """Every site's report on one split under these weights."""
    request = EvaluateRequest(
        **_training(run.study, vocabulary),
        split=split,  # type: ignore[arg-type]
    )
    return run.federation.ask(Action.EVALUATE, request, EvaluateReply, weights)


def train_alone(run: Run, vocabulary: Vocabulary, weights: Weights) -> list[Reply[AloneReply]]:
    """Every site's own model, for comparison; only its figures come back."""
    request = AloneRequest(
        **_training(run.study, vocabulary),
        pretrain=run.study.pretrain,
        finetune=run.study.finetune,
    )
    return run.federation.ask(Action.ALONE, request, AloneReply, weights)


def positive_weight(descriptions: list[SiteDescription]) -> float:
    """Negatives per positive over the training stays of all sites that could name both."""
    stays = positives = 0
    for description in descriptions:
        counts = description.splits["train"]
        if counts.stays is not None and counts.positives is not None:
            stays += counts.stays
            positives += counts.positives
    return (stays - positives) / positives if positives else 1.0


def _training(study: StudyConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """The fields of `protocol.Training`, which every message that trains or scores carries."""
    return {
        "study": study.name,
        "task": study.task,
        "model": study.model,
        "vocabulary_hash": vocabulary.hash,
        "seed": study.seed,
    }


def _mean(values: list[tuple[float | None, int]]) -> float | None:
    """Mean over stays; None where no site had the figure."""
    known = [(value, weight) for value, weight in values if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _tuning(figures: PooledFigures) -> dict[str, float | None]:
    """The received weights on all sites' tuning stays; one round behind the loss beside it."""
    return {
        "tuning_auroc": None if figures.auroc is None else figures.auroc.estimate,
        "tuning_auprc": None if figures.auprc is None else figures.auprc.estimate,
        "tuning_log_loss": figures.log_loss,
    }
