"""What the true risk can reach: figures for truth.json.

All are expectations over the labels, given the stays that were drawn; `standard_error` is how far
they may be from those of endlessly many stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hymate.data.cohort.physiology import Floats

FEWEST = 2
"""Stays below which nothing is said about a group."""


def bayes_auroc(risk: Floats) -> float:
    """AUROC that the true risk reaches in expectation over the labels: no model can do better.

    sum_ij r_i (1 - r_j) [r_i > r_j] / sum_ij r_i (1 - r_j), equal risks counting half.
    """
    return expected_auroc(risk, risk)


def expected_auroc(score: Floats, risk: Floats) -> float:
    """AUROC that `score` reaches in expectation where labels are drawn from `risk`; both (stays,)."""
    below, _ = _risk_around(score, risk)
    return float((risk * below).sum() / (risk.sum() * (1.0 - risk).sum()))


def auroc_error(score: Floats, risk: Floats) -> float:
    """Standard error of `expected_auroc` as an estimate for the population the stays are drawn from.

    From the influence of each stay on numerator and denominator, both U-statistics of degree two.
    """
    n = len(risk)
    below, above = _risk_around(score, risk)
    won = (risk * below + (1.0 - risk) * above) / n
    p = risk.mean()
    numerator, denominator = float((risk * below).sum()) / n**2, float(p * (1.0 - p))
    pairs = risk * (1.0 - p) + (1.0 - risk) * p
    influence = (won - 2 * numerator - numerator / denominator * (pairs - 2 * denominator)) / denominator
    return float(influence.std(ddof=1) / np.sqrt(n))


def _risk_around(score: Floats, risk: Floats) -> tuple[Floats, Floats]:
    """Per stay: expected negatives scored below it, and expected positives above it; ties count half."""
    _, which = np.unique(score, return_inverse=True)
    positive = np.bincount(which, weights=risk)
    negative = np.bincount(which, weights=1.0 - risk)
    below = np.cumsum(negative) - negative / 2
    above = positive.sum() - np.cumsum(positive) + positive / 2
    return below[which], above[which]


def binary_figures(
    risk: Floats, recorded: Floats | None, outcome: npt.NDArray[np.bool_], observer: Floats | None
) -> dict[str, Any]:
    """Figures of one task among some stays, JSON-ready; empty for fewer than `FEWEST` stays.

    Args:
        risk: true probability of the outcome, (stays,).
        recorded: probability that the label says so, where positives may be recorded as negative.
        outcome: what became of them.
        observer: risk as a perfect observer of the record states it.
    """
    if len(risk) < FEWEST:
        return {}
    figures = {
        "stays": len(risk),
        "base_rate": _short(risk.mean()),
        "positives": int(outcome.sum()),
        "bayes_auroc": _short(bayes_auroc(risk)),
        "bayes_auroc_standard_error": _short(auroc_error(risk, risk)),
    }
    if recorded is not None:
        figures["recorded_rate"] = _short(recorded.mean())
        figures["bayes_auroc_of_recorded"] = _short(bayes_auroc(recorded))
    if observer is not None:
        figures["observer_auroc"] = _short(expected_auroc(observer, risk))
        figures["observer_auroc_standard_error"] = _short(auroc_error(observer, risk))
    return figures


def length_figures(expected: Floats, days: Floats, observer: Floats | None) -> dict[str, Any]:
    """The same for a regression: days of stay against their expectation, both (stays,)."""
    if len(days) < FEWEST:
        return {}
    figures: dict[str, Any] = {
        "stays": len(days),
        "mean_days": _short(expected.mean()),
        "bayes_rmse_days": _short(_rmse(days, expected)),
    }
    if observer is not None:
        figures["observer_rmse_days"] = _short(_rmse(days, observer))
    return figures


def _rmse(days: Floats, predicted: Floats) -> float:
    return float(np.sqrt(((days - predicted) ** 2).mean()))


def _short(figure: float) -> float:
    return round(float(figure), 4)
