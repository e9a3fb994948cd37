"""`report.json`: every figure of a study, in one place, for people and programs.

Numbers here are exact at each site and pooled with a bound; see `hymate.evaluate.histograms`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hymate.data.statistics import SiteStatistics
from hymate.data.vocabulary import Vocabulary
from hymate.evaluate.histograms import Bounded
from hymate.joining_protocol import PrepareReply, SiteDescription
from hymate.report.content import FORMAT
from hymate.score_reports import Detail, ScoreReport
from hymate.secure_config import SecureAggregationConfig
from server.generalisation import Generalisation
from server.journal import TROUBLES
from server.pooled import pooled_figures
from server.recalibration import Recalibrated
from server.report.drift import drift_section
from server.report.fairness import fairness_section
from server.report.generalisation import generalisation_section
from server.report.performance import grid_of, performance_section
from server.report.privacy import privacy_section
from server.report.vocabulary import vocabulary_section
from server.roster import Standing
from server.study import StudyConfig
from strategies.registry import is_personal


@dataclass(frozen=True)
class Outcome:
    """What the phases of a finished study found."""

    study: StudyConfig
    descriptions: Sequence[SiteDescription]
    vocabulary: Vocabulary
    statistics: Mapping[str, SiteStatistics]
    prepared: Mapping[str, PrepareReply]
    held_out: Mapping[str, ScoreReport]
    finetune_rounds: int
    best_round: int
    participation: Sequence[dict[str, Any]]
    timings: Mapping[str, float]
    versions: Mapping[str, str]
    detail: Detail
    """What the held-out figures have in common."""
    recalibrated: Mapping[str, Recalibrated]
    generalisation: Generalisation
    standings: Mapping[str, Standing] = field(default_factory=dict)


def build_report(outcome: Outcome) -> dict[str, Any]:
    """The content of `report.json`; keys with no figure hold null, never a made-up number."""
    sites = {
        name: {
            "n": report.n,
            "positives": report.positives,
            "auroc": report.auroc,
            "auprc": report.auprc,
            "brier": _per_stay(report.squared_error_sum, report),
            "log_loss": _per_stay(report.log_loss_sum, report),
        }
        for name, report in outcome.held_out.items()
    }
    local = {
        name: {
            "auroc": reply.held_out.auroc,
            "auprc": reply.held_out.auprc,
            "finetune_epochs": reply.finetune_epochs,
            "best_epoch": reply.best_epoch,
        }
        for name, reply in outcome.generalisation.own.replies.items()
    }
    return {
        "format": FORMAT,
        "study": outcome.study.name,
        "seed": outcome.study.seed,
        "task": outcome.study.task.name,
        "strategy": outcome.study.strategy.name,
        "personal": is_personal(outcome.study.strategy),
        "split": "held_out",
        "sites": sites,
        "local": local,
        "pooled": _pooled(list(outcome.held_out.values()), len(outcome.detail.edges) + 1),
        "mean": {
            "federated": _means(sites),
            "local": _means(local) if local else None,
        },
        "performance": performance_section(
            outcome.held_out,
            outcome.detail,
            outcome.recalibrated,
            outcome.study.evaluation.operating_point.model_dump(exclude_none=True),
            outcome.study.seed,
        ),
        "fairness": fairness_section(
            outcome.held_out,
            outcome.detail,
            outcome.recalibrated,
            outcome.study.evaluation.min_group,
            outcome.study.seed,
        ),
        "generalisation": generalisation_section(
            outcome.held_out,
            outcome.generalisation,
            grid_of(outcome.detail, outcome.study.seed),
            drift_section(outcome.descriptions, outcome.statistics, outcome.vocabulary),
        ),
        "rounds": {
            "pretrain": outcome.study.pretrain.rounds,
            "finetune": outcome.finetune_rounds,
            "best": outcome.best_round,
        },
        "cohort": {
            description.site: {
                "dataset": description.dataset,
                "splits": {name: counts.model_dump() for name, counts in description.splits.items()},
                "left_out": description.left_out,
                "unknown_codes": _unknown_codes(outcome, description.site),
            }
            for description in outcome.descriptions
        },
        "vocabulary": vocabulary_section(outcome.vocabulary, outcome.statistics, outcome.prepared),
        "participation": _participation(outcome.participation),
        "privacy": privacy_section(outcome.study, outcome.standings),
        "secure_aggregation": _dumped(outcome.study.secure_aggregation),
        "timings": dict(outcome.timings),
        "versions": dict(outcome.versions),
    }


def _dumped(config: SecureAggregationConfig | None) -> dict[str, Any] | None:
    return None if config is None else config.model_dump()


def _unknown_codes(outcome: Outcome, site: str) -> int | None:
    """None for a site that described its data and then could not make its store."""
    prepared = outcome.prepared.get(site)
    return None if prepared is None else prepared.unknown_codes


def _per_stay(total: float | None, report: ScoreReport) -> float | None:
    return total / report.n if total is not None and report.n else None


def _pooled(reports: Sequence[ScoreReport], bins: int) -> dict[str, Any]:
    figures = pooled_figures(reports, bins)
    return {
        "sites": figures.sites,
        "n": figures.n,
        "positives": figures.positives,
        "auroc": None if figures.auroc is None else figures.auroc.estimate,
        "auroc_bounds": _interval(figures.auroc),
        "auprc": None if figures.auprc is None else figures.auprc.estimate,
        "auprc_bounds": _interval(figures.auprc),
        "brier": figures.brier,
        "log_loss": figures.log_loss,
    }


def _interval(figure: Bounded | None) -> list[float] | None:
    return None if figure is None else [figure.lower, figure.upper]


def _means(sites: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Unweighted mean over the sites that have the figure: a summary of sites, not a pooled figure."""
    means: dict[str, float | None] = {}
    for key in ("auroc", "auprc"):
        known = [site[key] for site in sites.values() if site[key] is not None]
        means[key] = statistics.fmean(known) if known else None
    return means


def _participation(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per site how often each outcome was, and its share of the weight folded; each trouble with its reason.

    `participation.jsonl` has the whole story, line by line.
    """
    counts: dict[str, Counter[str]] = {}
    weights: Counter[str] = Counter()
    for line in lines:
        counts.setdefault(line["site"], Counter())[line["outcome"]] += 1
        if line["round"] and line["outcome"] == "replied":
            weights[line["site"]] += line.get("weight") or 0
        elif line["round"] and line["outcome"] == "quarantined":
            weights[line["site"]] -= line.get("weight") or 0
    total = weights.total()
    sites = {
        site: {**count, "weight_share": weights[site] / total if total else None}
        for site, count in sorted(counts.items())
        if set(count) != {"asked"}  # a node that then said its name
    }
    troubles = [
        {key: line.get(key) for key in ("phase", "round", "site", "outcome", "reason")}
        for line in lines
        if line["outcome"] in (*TROUBLES, "absent", "skipped")
    ]
    return {"sites": sites, "troubles": troubles}
