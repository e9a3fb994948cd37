"""The phases of a study, each a function of what the phases before it agreed.

describe -> vocabulary -> pretrain -> fine-tune -> evaluate -> report
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hymate.data.statistics import SiteStatistics
from hymate.data.vocabulary import Vocabulary, build_vocabulary, mapping_lines
from hymate.evaluate.histograms import ScoreCells
from hymate.model.hymate import HyMaTE, build_model
from hymate.protocol import (
    Action,
    AloneReply,
    AloneRequest,
    Cells,
    Detail,
    EvaluateReply,
    EvaluateRequest,
    FinetuneRequest,
    NoisePlan,
    PrepareReply,
    PrepareRequest,
    PretrainRequest,
    ScoreReport,
    SiteDescription,
    StatisticsReply,
    StatisticsRequest,
)
from hymate.train.early_stopping import EarlyStopping
from server.checkpoint import Checkpoint, Checkpoints
from server.detail import agreed_detail
from server.exchange import Reply
from server.journal import Journal
from server.phase_clock import PhaseClock
from server.pooled import PooledFigures, pooled_figures
from server.rounds import Federation
from server.study import StudyConfig
from strategies.registry import is_personal, make_algorithm
from strategies.screening import LengthCheck

Weights = Mapping[str, NDArray[np.generic]]
PHASES: tuple[Literal["pretrain", "finetune"], ...] = ("pretrain", "finetune")


@dataclass(frozen=True)
class Run:
    """What every phase is given, and where a complete phase or round is written down."""

    study: StudyConfig
    folder: Path
    federation: Federation
    journal: Journal
    checkpoints: Checkpoints
    clock: PhaseClock
    id: str
    """Identity of the run: sites keep what they remember under it."""

    def complete(
        self, phase: str, number: int, facts: dict[str, Any] | None = None, **arrays: Weights
    ) -> None:
        """This phase (number 0) or round is done: from here the study goes on after a crash."""
        study = {
            "run": self.id,
            "sites": self.federation.roster.dump(),
            "seconds": self.clock.seconds,
            "marks": self.journal.marks(),
        }
        self.checkpoints.save(Checkpoint(phase, number, study, facts or {}, **arrays))


@dataclass(frozen=True)
class Finetuned:
    """The weights that did best on tuning, and the round they came from (0 = before fine-tuning)."""

    weights: Weights
    best_round: int
    rounds: int
    tuning: ScoreCells | None = None
    """All sites' tuning stays under these weights, between `hymate.evaluate.edges.first_edges`."""


@dataclass(frozen=True)
class Agreement:
    """The vocabulary, what each site had said of its codes, and how its store came out."""

    vocabulary: Vocabulary
    statistics: Mapping[str, SiteStatistics]
    prepared: Mapping[str, PrepareReply]
    """Of the sites that agreed in time; `Federation.prepared` also has those that came later."""


def describe(run: Run) -> None:
    """Learn which sites there are and what they hold."""
    if run.checkpoints.latest("describe") is None and not run.federation.descriptions:
        run.federation.join()
        run.complete("describe", 0)


def agree_vocabulary(run: Run) -> Agreement:
    """Merge the sites' statistics, freeze the vocabulary, have every site make its store under it."""
    task = run.study.task
    saved = run.checkpoints.latest("vocabulary")
    if saved is not None:
        statistics = {
            site: SiteStatistics.from_json(text) for site, text in saved.facts["statistics"].items()
        }
        vocabulary = Vocabulary.from_json(saved.facts["vocabulary"])
    else:
        request = StatisticsRequest(task=task, mapping=mapping_lines(run.study.vocabulary))
        replies = run.federation.ask(Action.STATISTICS, request, StatisticsReply)
        statistics = {reply.site: SiteStatistics.from_json(reply.record.statistics) for reply in replies}
        vocabulary = build_vocabulary(statistics, run.study.vocabulary)
    vocabulary.save(run.folder / "vocabulary.json")
    text = vocabulary.to_json()
    run.federation.freeze(PrepareRequest(task=task, vocabulary=text, vocabulary_hash=vocabulary.hash))
    if saved is None:
        run.federation.agree()
        run.journal.metric(
            "vocabulary",
            "frozen",
            codes=vocabulary.size,
            dropped=len(vocabulary.dropped),
            hash=vocabulary.hash,
        )
        said = {site: of.to_json() for site, of in statistics.items()}
        run.complete("vocabulary", 0, {"vocabulary": text, "statistics": said})
    return Agreement(vocabulary, statistics, run.federation.prepared)


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


def pretrain(run: Run, vocabulary: Vocabulary, weights: Weights) -> Weights:
    """Masked forecasting over `pretrain.rounds` rounds; returns the last round's weights."""
    study = run.study
    strategy = study.strategy.of("pretrain")
    algorithm = make_algorithm(strategy)
    saved = run.checkpoints.latest("pretrain")
    lengths = LengthCheck(study.participation.norm_factor, saved.facts["lengths"] if saved else None)
    done = 0
    if saved is not None:
        done, weights = saved.number, saved.weights
        algorithm.restore(saved.strategy)
    for number in range(done + 1, study.pretrain.rounds + 1):
        request = PretrainRequest(
            **_training(run, vocabulary),
            round=number,
            pretrain=study.pretrain,
            strategy=strategy,
            **_noise(study),
            best_round=number - 1,
        )
        done_round = run.federation.train_round(algorithm, Action.PRETRAIN, request, weights, lengths)
        weights, replies = done_round.weights, done_round.replies
        run.journal.metric(
            "pretrain",
            "round",
            round=number,
            rounds=study.pretrain.rounds,
            loss=_mean([(reply.record.loss, done_round.stays[reply.site]) for reply in replies]),
            forecast_error=_mean(
                [(reply.record.received_error, done_round.stays[reply.site]) for reply in replies]
            ),
            slowest_s=max(reply.record.seconds for reply in replies),
            bytes_down=done_round.bytes_down,
            bytes_up=done_round.bytes_up,
        )
        run.complete(
            "pretrain", number, {"lengths": lengths.state}, weights=weights, strategy=algorithm.state()
        )
    return weights


def finetune(run: Run, vocabulary: Vocabulary, weights: Weights) -> Finetuned:
    """Rounds on the label until tuning AUROC + average precision stops rising.

    Each reply reports on the weights the site *received*, so a round needs one message; the last
    round's weights are scored by one more exchange. Where rounds draw some of the sites, those of every
    round are: scores of one set of sites and of another say nothing about which weights are better.
    """
    study = run.study
    strategy = study.strategy.of("finetune")
    algorithm = make_algorithm(strategy)
    samples = run.federation.draw("finetune", 1, study.seed, algorithm.fewest()).samples
    stopping = EarlyStopping(study.finetune.patience)
    balance = study.finetune.weight_of_positives(positive_weight(run.federation.descriptions))
    best, best_round, done, ended = weights, 0, 0, False
    tuning: ScoreCells | None = None
    lengths = LengthCheck(study.participation.norm_factor)
    saved = run.checkpoints.latest("finetune")
    if saved is not None:
        facts = saved.facts
        done, weights, best = saved.number, saved.weights, saved.best
        balance, best_round, ended = facts["balance"], facts["best_round"], facts["ended"]
        tuning = Cells.model_validate(facts["tuning"]).arrays() if facts.get("tuning") else None
        lengths = LengthCheck(study.participation.norm_factor, facts["lengths"])
        stopping.restore(facts["stopping"])
        algorithm.restore(saved.strategy)

    def complete(*, ended: bool) -> None:
        facts = {
            "lengths": lengths.state,
            "stopping": stopping.state,
            "balance": balance,
            "best_round": best_round,
            "ended": ended,
            "tuning": Cells.of(tuning).model_dump() if tuning else None,
        }
        run.complete("finetune", done, facts, weights=weights, best=best, strategy=algorithm.state())

    while not ended and not stopping.exhausted and done < study.finetune.rounds:
        request = FinetuneRequest(
            **_training(run, vocabulary),
            round=done + 1,
            finetune=study.finetune,
            positive_weight=balance,
            strategy=strategy,
            **_noise(study),
            best_round=best_round,
        )
        received = weights
        scored = _scored(run, vocabulary, weights, done) if samples else None
        done_round = run.federation.train_round(algorithm, Action.FINETUNE, request, weights, lengths)
        weights, replies = done_round.weights, done_round.replies
        figures = scored or pooled_figures([reply.record.received for reply in replies])
        if stopping.update(figures.criterion):
            best, best_round, tuning = received, done, figures.cells
            run.checkpoints.save_best(best_round, best)
        done += 1
        run.journal.metric(
            "finetune",
            "round",
            round=done,
            rounds=study.finetune.rounds,
            loss=_mean([(reply.record.loss, done_round.stays[reply.site]) for reply in replies]),
            slowest_s=max(reply.record.seconds for reply in replies),
            best=best_round,
            bytes_down=done_round.bytes_down,
            bytes_up=done_round.bytes_up,
            **_tuning(figures),
        )
        complete(ended=stopping.exhausted)
        ended = stopping.exhausted
    if not ended:
        last = _scored(run, vocabulary, weights, done)
        run.journal.metric("finetune", "last", **_tuning(last))
        if stopping.update(last.criterion):
            best, best_round, tuning = weights, done, last.cells
            run.checkpoints.save_best(best_round, best)
        complete(ended=True)
    return Finetuned(best, best_round, done, tuning)


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
        **_training(run, vocabulary),
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
        **_training(run, vocabulary),
        "split": split,
        "detail": detail,
        "personal": strategy if is_personal(strategy) else None,
        "round": server_round,
    }


def _scored(run: Run, vocabulary: Vocabulary, weights: Weights, server_round: int) -> PooledFigures:
    """All sites' tuning stays under these weights."""
    replies = score(run, vocabulary, weights, "tuning", server_round)
    return pooled_figures([reply.record.report for reply in replies])


def positive_weight(descriptions: list[SiteDescription]) -> float:
    """Negatives per positive over the training stays of all sites that could name both."""
    stays = positives = 0
    for description in descriptions:
        counts = description.splits["train"]
        if counts.stays is not None and counts.positives is not None:
            stays += counts.stays
            positives += counts.positives
    return (stays - positives) / positives if positives else 1.0


def _training(run: Run, vocabulary: Vocabulary) -> dict[str, Any]:
    """The fields of `protocol.Training`, which every message that trains or scores carries."""
    study = run.study
    return {
        "study": study.name,
        "run": run.id,
        "task": study.task,
        "model": study.model,
        "vocabulary_hash": vocabulary.hash,
        "seed": study.seed,
    }


def _noise(study: StudyConfig) -> dict[str, Any]:
    """The fields of `protocol.RoundRequest` that say whether and how updates are noised."""
    if study.privacy.mode == "none":
        return {"privacy": study.privacy}
    halves = {phase: make_algorithm(study.strategy.of(phase)).site_half() for phase in PHASES}
    plan = NoisePlan(
        pretrain=study.pretrain,
        finetune=study.finetune,
        trainings={phase: half.trainings(phase) if half else 1 for phase, half in halves.items()},
    )
    return {"privacy": study.privacy, "plan": plan}


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
