"""The section `performance` of report.json: figures by site, within sites, over all, and for a new site."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hymate.evaluate.delong import log_odds_and_variance
from hymate.evaluate.estimates import CONFIDENCE, Estimate, Z
from hymate.evaluate.federated import Fitted, Grid, Part, figures, undefined
from hymate.evaluate.histograms import pool
from hymate.evaluate.metrics import SUMS
from hymate.evaluate.random_effects import random_effects
from hymate.evaluate.reliability import reliability_bins
from hymate.score_reports import Detail, GroupReport, OwnFit, ScoreReport
from server.recalibration import Recalibrated

TOO_FEW = "fewer of a class than the site's minimum: only its number of stays is told"


def grid_of(detail: Detail, seed: int) -> Grid:
    """Edges and operating point as arrays."""
    return Grid(np.array(detail.edges), detail.threshold, seed)


def part_of(report: ScoreReport | GroupReport) -> Part | None:
    """What a site told of some stays; None where it told too little."""
    sums = {name: getattr(report, name) for name in SUMS}
    if report.cells is None or None in sums.values():
        return None
    exact = report.deviation is None
    return Part(
        cells=report.cells.arrays(),
        auroc=report.auroc if exact else None,
        auroc_variance=report.auroc_variance,
        average_precision=report.auprc if isinstance(report, ScoreReport) and exact else None,
        deviation=report.deviation,
        **sums,
    )


def performance_section(
    reports: Mapping[str, ScoreReport],
    detail: Detail,
    recalibrated: Mapping[str, Recalibrated],
    rule: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """JSON-ready; every figure is {value, bound, interval} or null, never a made-up number."""
    grid = grid_of(detail, seed)
    parts = {name: part for name, report in reports.items() if (part := part_of(report)) is not None}
    everyone = list(parts.values())
    return {
        "confidence": CONFIDENCE,
        "bins": grid.bins,
        "operating_point": {"rule": dict(rule), "threshold": detail.threshold},
        "sites": {name: _site(report, parts.get(name), grid) for name, report in reports.items()},
        "within_site": {"auroc": _within(everyone), "sites": len(_ranked(everyone))},
        "pooled": {
            **_described(everyone, grid, fitted_of(recalibrated.get(""))),
            "sites": len(everyone),
            "recalibration_sites": len(recalibrated.get("", Recalibrated()).sites),
        },
        "random_effects": {"auroc": across_sites(everyone)},
    }


def fitted_of(found: Recalibrated | OwnFit | None) -> Fitted:
    """The coefficients alone."""
    if found is None:
        return Fitted()
    return Fitted(found.slope, found.slope_error, found.intercept, found.intercept_error)


def told(found: Mapping[str, Estimate | None]) -> dict[str, Any]:
    """Figures as JSON."""
    return {name: None if figure is None else figure.to_json() for name, figure in found.items()}


def across_sites(parts: Sequence[Part]) -> dict[str, Any] | None:
    """Random-effects mean of the sites' AUROCs in log odds and the prediction interval for a new site.

    Null for fewer than two sites that have one.
    """
    ranked = _ranked(parts)
    points = [
        log_odds_and_variance(auroc, variance, part.positives, part.n - part.positives)
        for part, auroc, variance in ranked
    ]
    found = random_effects([y for y, _ in points], [v for _, v in points])
    if found is None:
        return None
    return {
        "sites": found.sites,
        "mean": _expit(found.mean),
        "interval": [_expit(end) for end in found.interval],
        "prediction": None if found.prediction is None else [_expit(end) for end in found.prediction],
        "tau2": found.tau2,
        "i2": found.i2,
        "scale": "log odds; restricted maximum likelihood, Hartung-Knapp",
    }


def _site(report: ScoreReport, part: Part | None, grid: Grid) -> dict[str, Any]:
    if part is None:
        return {"n": report.n, "positives": report.positives, "figures": None, "note": TOO_FEW}
    return {
        **_described([part], grid, fitted_of(report.own_fit)),
        "held_back": list(report.held_back),
        "deviation": report.deviation,
    }


def _described(parts: Sequence[Part], grid: Grid, fitted: Fitted) -> dict[str, Any]:
    cells = pool([part.cells for part in parts]) if parts else None
    return {
        "n": sum(part.n for part in parts),
        "positives": sum(part.positives for part in parts),
        "figures": told(figures(parts, grid, fitted)),
        "reliability": [] if cells is None else [asdict(each) for each in reliability_bins(cells)],
        "note": undefined(parts),
    }


def _ranked(parts: Sequence[Part]) -> list[tuple[Part, float, float]]:
    """The sites that have an AUROC, with it and its variance."""
    return [
        (part, part.auroc, part.auroc_variance)
        for part in parts
        if part.auroc is not None and part.auroc_variance is not None
    ]


def _within(parts: Sequence[Part]) -> dict[str, Any] | None:
    """Mean of the sites' exact AUROCs, weighted by their pairs of a positive and a negative: how well the
    model ranks two patients of one hospital. Null where no site has one."""
    ranked = _ranked(parts)
    weights = [float(part.positives) * (part.n - part.positives) for part, _, _ in ranked]
    total = sum(weights)
    if not total:
        return None
    value = sum(w * auroc for w, (_, auroc, _) in zip(weights, ranked, strict=True)) / total
    variance = sum(w * w * v for w, (_, _, v) in zip(weights, ranked, strict=True)) / total**2
    p = sum(part.positives for part, _, _ in ranked)
    n = sum(part.n - part.positives for part, _, _ in ranked)
    centre, spread = log_odds_and_variance(value, variance, p, n)
    reach = Z * math.sqrt(spread)
    return Estimate(value, (value, value), (_expit(centre - reach), _expit(centre + reach))).to_json()


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))
