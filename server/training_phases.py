"""The phases that train, each a function of the weights it begins with: pretraining, then fine-tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from hymate.data.vocabulary import Vocabulary
from hymate.evaluate.histograms import ScoreCells
from hymate.joining_protocol import SiteDescription
from hymate.privacy_config import CentralPrivacyConfig, PrivacyConfig
from hymate.protocol import Action, FinetuneRequest, NoisePlan, PretrainRequest
from hymate.score_reports import Cells
from hymate.train.early_stopping import EarlyStopping
from server.central_noise import CentralNoise, multiplier_of
from server.checkpoint import save_study_model
from server.phases import first_model, weights_of
from server.pooled import PooledFigures, pooled_figures
from server.run import Finetuned, Run
from server.scoring_phases import tuning_figures
from server.secure_phases import train_round
from server.study import StudyConfig
from server.training_round import Folded
from strategies.arrays import Weights
from strategies.base import Algorithm
from strategies.registry import make_algorithm
from strategies.screening import LengthCheck

Phase = Literal["pretrain", "finetune"]
PHASES: tuple[Phase, ...] = ("pretrain", "finetune")


@dataclass(frozen=True)
class Trained:
    """The weights training began with, and those that it ended with."""

    first: Weights
    tuned: Finetuned


def train(run: Run, vocabulary: Vocabulary) -> Trained:
    """Both phases of training, from the study's first weights; the model lies in the run's folder then."""
    model = first_model(run.study, vocabulary)
    first = weights_of(model)
    run.begin("pretrain")
    pretrained = pretrain(run, vocabulary, first)
    run.begin("finetune")
    tuned = finetune(run, vocabulary, pretrained)
    save_study_model(run.folder, run.study, vocabulary, model, tuned.weights)
    return Trained(first, tuned)


def pretrain(run: Run, vocabulary: Vocabulary, weights: Weights) -> Weights:
    """Masked forecasting over `pretrain.rounds` rounds; returns the last round's weights."""
    study = run.study
    algorithm = _algorithm(run, "pretrain")
    saved = run.checkpoints.latest("pretrain")
    lengths = LengthCheck(_norm_factor(study), saved.facts["lengths"] if saved else None)
    done = 0
    if saved is not None:
        done, weights = saved.number, saved.weights
        algorithm.restore(saved.strategy)
    for number in range(done + 1, study.pretrain.rounds + 1):
        request = PretrainRequest(
            **_round(run, vocabulary, "pretrain", number, best_round=number - 1), pretrain=study.pretrain
        )
        done_round = train_round(run, algorithm, Action.PRETRAIN, request, weights, lengths)
        weights = done_round.weights
        run.journal.metric(
            "pretrain",
            "round",
            **_told(done_round, number, study.pretrain.rounds),
            forecast_error=done_round.forecast_error,
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
    algorithm = _algorithm(run, "finetune")
    samples = run.federation.draw("finetune", 1, study.seed, algorithm.fewest()).samples
    stopping = EarlyStopping(study.finetune.patience)
    balance = study.finetune.weight_of_positives(positive_weight(run.federation.descriptions))
    best, best_round, done, ended = weights, 0, 0, False
    tuning: ScoreCells | None = None
    saved = run.checkpoints.latest("finetune")
    lengths = LengthCheck(_norm_factor(study), saved.facts["lengths"] if saved else None)
    if saved is not None:
        facts = saved.facts
        done, weights, best = saved.number, saved.weights, saved.best
        balance, best_round, ended = facts["balance"], facts["best_round"], facts["ended"]
        tuning = Cells.model_validate(facts["tuning"]).arrays() if facts.get("tuning") else None
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
            **_round(run, vocabulary, "finetune", done + 1, best_round=best_round),
            finetune=study.finetune,
            positive_weight=balance,
            score=not samples,
        )
        received = weights
        scored = tuning_figures(run, vocabulary, weights, done) if samples else None
        done_round = train_round(run, algorithm, Action.FINETUNE, request, weights, lengths)
        weights = done_round.weights
        figures = scored or pooled_figures(done_round.reports)
        if stopping.update(figures.criterion):
            best, best_round, tuning = received, done, figures.cells
            run.checkpoints.save_best(best_round, best)
        done += 1
        run.journal.metric(
            "finetune",
            "round",
            **_told(done_round, done, study.finetune.rounds),
            best=best_round,
            **_tuning(figures),
        )
        complete(ended=stopping.exhausted)
        ended = stopping.exhausted
    if not ended:
        last = tuning_figures(run, vocabulary, weights, done)
        run.journal.metric("finetune", "last", **_tuning(last))
        if stopping.update(last.criterion):
            best, best_round, tuning = weights, done, last.cells
            run.checkpoints.save_best(best_round, best)
        complete(ended=True)
    return Finetuned(best, best_round, done, tuning)


def positive_weight(descriptions: list[SiteDescription]) -> float:
    """Negatives per positive over the training stays of all sites that could name both."""
    stays = positives = 0
    for description in descriptions:
        counts = description.splits["train"]
        if counts.stays is not None and counts.positives is not None:
            stays += counts.stays
            positives += counts.positives
    return (stays - positives) / positives if positives else 1.0


def _algorithm(run: Run, phase: Phase) -> Algorithm:
    """The phase's algorithm, under the coordinator's noise where the study asks for it."""
    study = run.study
    algorithm = make_algorithm(study.strategy.of(phase))
    if not isinstance(study.privacy, CentralPrivacyConfig):
        return algorithm
    multiplier = multiplier_of(study.privacy, study.pretrain.rounds + study.finetune.rounds)
    noised = partial(run.federation.roster.noised_in_mean, phase)
    return CentralNoise(algorithm, study.privacy, multiplier, noised=noised)


def _norm_factor(study: StudyConfig) -> float:
    """Under the coordinator's noise no update may decide whether another counts; clipping bounds all."""
    if isinstance(study.privacy, CentralPrivacyConfig):
        return math.inf
    return study.participation.norm_factor


def _round(run: Run, vocabulary: Vocabulary, phase: Phase, number: int, *, best_round: int) -> dict[str, Any]:
    """The fields of `protocol.RoundRequest`."""
    return {
        **run.training(vocabulary),
        "round": number,
        "strategy": run.study.strategy.of(phase),
        **_noise(run.study),
        "best_round": best_round,
    }


def _told(done: Folded, number: int, rounds: int) -> dict[str, Any]:
    """What the journal says of a round of either phase."""
    return {
        "round": number,
        "rounds": rounds,
        "loss": done.loss,
        "slowest_s": done.slowest_s,
        "training_s": done.training_s,
        "bytes_down": done.bytes_down,
        "bytes_up": done.bytes_up,
    }


def _noise(study: StudyConfig) -> dict[str, Any]:
    """The fields of `protocol.RoundRequest` that say whether and how sites noise their updates."""
    if study.privacy.mode != "dp-sgd":
        return {"privacy": PrivacyConfig()}
    halves = {phase: make_algorithm(study.strategy.of(phase)).site_half() for phase in PHASES}
    plan = NoisePlan(
        pretrain=study.pretrain,
        finetune=study.finetune,
        trainings={phase: half.trainings(phase) if half else 1 for phase, half in halves.items()},
    )
    return {"privacy": study.privacy, "plan": plan}


def _tuning(figures: PooledFigures) -> dict[str, float | None]:
    """The received weights on all sites' tuning stays; one round behind the loss beside it."""
    return {
        "tuning_auroc": None if figures.auroc is None else figures.auroc.estimate,
        "tuning_auprc": None if figures.auprc is None else figures.auprc.estimate,
        "tuning_log_loss": figures.log_loss,
    }
