"""The section `generalisation` of report.json: the federated model beside others, and where it never learned.

Every figure is {value, bound, interval} or null, and says why; none is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from hymate.evaluate.differences import Comparison, holm
from hymate.evaluate.estimates import CONFIDENCE
from hymate.evaluate.federated import Fitted, Grid, figures, undefined
from hymate.evaluate.paired import Paired, mean_over_sites, paired_comparison
from hymate.score_reports import ScoreReport
from hymate.scoring_protocol import ModelKind
from server.comparison_phases import QUESTIONS, Matrix, Reports
from server.generalisation import Generalisation
from server.leave_one_out import LeftOut, Tested
from server.report.performance import TOO_FEW, fitted_of, grid_of, part_of, told

Pair = tuple[ModelKind, ModelKind]

SHOWN = (
    *("auroc", "average_precision", "brier", "log_loss"),
    *("calibration_slope", "calibration_intercept", "observed_to_expected", "base_rate"),
)
WORDS: dict[ModelKind, str] = {
    "federated": "federated: what the study ends with",
    "shared": "shared: the part of it that all sites have in common",
    "local": "local: trained on the site's own stays alone",
    "left_out": "left out: federated, trained without the site",
    "pooled": "pooled: trained on all sites' stays at one place",
}
NO_ANSWER = "the site gave no usable reply; participation.jsonl says why"
FEW = "fewer than five of a class, or a class too small to be told"
MULTIPLICITY = (
    "p_adjusted is Holm's over all {tests} comparisons of this section, by site and over sites; "
    "intervals hold one at a time"
)


def generalisation_section(
    federated: Reports, found: Generalisation, grid: Grid, drift: dict[str, Any]
) -> dict[str, Any]:
    """JSON-ready; null where the study did not ask.

    Args:
        federated: the study's held-out reports.
        grid: of these and of every model but those that leave a site out.
        drift: as `drift_section` made it.
    """
    return {
        "confidence": CONFIDENCE,
        "models": _models(federated, found, grid),
        "comparisons": _comparisons(federated, found),
        "leave_one_site_out": None if found.left_out is None else _left_out(found.left_out, grid.seed),
        "matrix": None if found.matrix is None else _matrix(found.matrix, sorted(federated), grid),
        "drift": drift,
    }


def _models(federated: Reports, found: Generalisation, grid: Grid) -> dict[str, Any]:
    """All models on the same held-out stays of each site."""
    kinds = found.models(federated)
    described: dict[str, dict[str, Any]] = {site: {} for site in federated}
    for kind, reports in kinds.items():
        for site, report in reports.items():
            own = grid
            if kind == "left_out" and found.left_out is not None:
                own = grid_of(found.left_out.tested[site].detail, grid.seed)
            described.setdefault(site, {})[kind] = _described([report], own)
    common = [
        site
        for site in described
        if all(site in reports and reports[site].auroc is not None for reports in kinds.values() if reports)
    ]
    return {
        "kinds": {kind: WORDS[kind] for kind in kinds},
        "sites": described,
        "gaps": {
            kind: {site: _why(kind, site, found) for site in described if site not in reports}
            for kind, reports in kinds.items()
        },
        "mean": {
            **{kind: _mean([of[site] for site in common if site in of]) for kind, of in kinds.items()},
            "sites": common,
        },
    }


def _why(kind: ModelKind, site: str, found: Generalisation) -> str:
    """Why there is no report."""
    if kind == "left_out" and found.left_out is not None:
        return found.left_out.gaps.get(site, NO_ANSWER)
    told = {"shared": found.shared, "pooled": found.pooled}.get(kind)
    return (told and told.gap) or NO_ANSWER


def _mean(reports: Sequence[ScoreReport]) -> dict[str, float | None]:
    """Plain mean over sites: no pooled figure."""
    found: dict[str, float | None] = {}
    for name in ("auroc", "auprc"):
        known = [value for report in reports if (value := getattr(report, name)) is not None]
        found[name] = fmean(known) if known else None
    return found


def _described(reports: Sequence[ScoreReport], grid: Grid) -> dict[str, Any]:
    """What one site told of some of its stays, in one report or in two of different stays."""
    parts = [part for report in reports if (part := part_of(report)) is not None]
    if not parts:
        return {"n": reports[0].n, "positives": reports[0].positives, "figures": None, "note": TOO_FEW}
    fitted = fitted_of(reports[0].own_fit) if len(reports) == 1 else Fitted()
    every = figures(parts, grid, fitted)
    return {
        "n": sum(part.n for part in parts),
        "positives": sum(part.positives for part in parts),
        "figures": told({name: every[name] for name in SHOWN}),
        "note": undefined(parts),
    }


def _left_out(found: LeftOut, seed: int) -> dict[str, Any]:
    sites = {site: _tested(tested, seed) for site, tested in found.tested.items()}
    return {**sites, **{site: {"gap": why} for site, why in found.gaps.items()}}


def _tested(tested: Tested, seed: int) -> dict[str, Any]:
    grid = grid_of(tested.detail, seed)
    read, unread = tested.prepared.triplets, tested.prepared.unknown_triplets
    return {
        "held_out": _described([tested.held_out], grid),
        "all_stays": _described([tested.held_out, tested.development], grid),
        "vocabulary": {
            "hash": tested.vocabulary.hash,
            "codes": tested.vocabulary.size,
            "unknown_codes": tested.prepared.unknown_codes,
            "unknown_share": None if read is None or unread is None else unread / max(read + unread, 1),
        },
        "rounds": {"finetune": tested.tuned.rounds, "best": tested.tuned.best_round},
        "trained_on": list(tested.trained_on),
        "seconds": tested.seconds,
        "gap": "",
    }


def _matrix(found: Matrix, sites: Sequence[str], grid: Grid) -> dict[str, Any]:
    return {
        "models": list(found.cells),
        "sites": list(sites),
        "cells": {
            model: {site: _described([report], grid) for site, report in reports.items()}
            for model, reports in found.cells.items()
        },
        "gaps": dict(found.gaps),
    }


def _comparisons(federated: Reports, found: Generalisation) -> dict[str, Any] | None:
    """AUROC of one model less that of another on the same stays, by site and over sites."""
    if not found.compared:
        return None
    compared: dict[Pair, dict[str, Comparison | None]] = {}
    over: dict[Pair, Comparison | None] = {}
    for pair, sites in found.compared.items():
        paired = {
            site: Paired(told_of.value, told_of.variance, _smaller(federated[site]))
            for site, told_of in sites.items()
            if told_of is not None and site in federated
        }
        compared[pair] = {site: paired_comparison(paired[site]) if site in paired else None for site in sites}
        over[pair] = mean_over_sites(list(paired.values()))
    tests = {
        (pair, site): comparison.p
        for pair in compared
        for site, comparison in [*compared[pair].items(), ("", over[pair])]
        if comparison is not None and comparison.p is not None
    }
    adjusted = holm(tests)

    def told_of(pair: Pair, site: str, comparison: Comparison | None) -> dict[str, Any] | None:
        if comparison is None:
            return None
        return replace(comparison, p_adjusted=adjusted[pair, site]).to_json()

    return {
        "pairs": [
            {
                "a": pair[0],
                "b": pair[1],
                "question": QUESTIONS[pair],
                "sites": {site: told_of(pair, site, each) for site, each in sites.items()},
                "mean": told_of(pair, "", over[pair]),
                "notes": {site: FEW for site, each in sites.items() if each is None},
            }
            for pair, sites in compared.items()
        ],
        "tests": len(tests),
        "multiplicity": MULTIPLICITY.format(tests=len(tests)),
    }


def _smaller(report: ScoreReport) -> int:
    """Stays of the smaller class; 0 where it may not be told."""
    if report.n is None or report.positives is None:
        return 0
    return min(report.positives, report.n - report.positives)
