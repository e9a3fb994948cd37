"""How sure an AUROC is (DeLong, DeLong & Clarke-Pearson 1988, https://doi.org/10.2307/2531595).

A positive's component is the share of negatives below it, a negative's the share of positives above it; the
AUROC's variance is that of their means. At a site, components of one subject's stays are added first
(Obuchowski 1997, https://doi.org/10.2307/2533958), for they resemble each other. From cells, the components
are those of the binned scores: every stay of a cell has the cell's. That is why no bootstrap is needed for
the AUROC: its variance has a closed form in the cells, free of drawing error, and equals DeLong's to the
order of the bound.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.estimates import CONFIDENCE, Estimate
from hymate.evaluate.histograms import BINS, Bounded, ScoreCells, midranks

Floats = NDArray[np.float64]


def auroc_and_variance(
    labels: Floats, scores: Floats, subjects: NDArray[np.int64]
) -> tuple[float, float] | None:
    """Exact AUROC (ties count a half) and the variance of its estimate; None where a class is missing.

    Args:
        labels: 0.0 or 1.0; scores: any finite numbers; subjects: whose stays they are; all (n,).
    """
    found = _auroc_and_influence(labels, scores)
    return None if found is None else (found[0], _squared_by_subject(found[1], subjects))


def auroc_difference(
    labels: Floats, first: Floats, second: Floats, subjects: NDArray[np.int64]
) -> tuple[float, float] | None:
    """AUROC of the first scores less that of the second of the same stays, and its variance.

    What the two have in common cancels stay by stay: the variance is smaller than the sum of theirs by twice
    DeLong's covariance. None where a class is missing.
    """
    a, b = _auroc_and_influence(labels, first), _auroc_and_influence(labels, second)
    if a is None or b is None:
        return None
    return a[0] - b[0], _squared_by_subject(a[1] - b[1], subjects)


def _auroc_and_influence(labels: Floats, scores: Floats) -> tuple[float, Floats] | None:
    """Exact AUROC, and what each stay adds to it, (n,), scaled so that its squares add up to the variance."""
    positive = labels > 0.5
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return None
    _, which = np.unique(scores, return_inverse=True)
    positives, negatives = np.bincount(which, positive), np.bincount(which, ~positive)
    below = (np.cumsum(negatives) - negatives / 2)[which] / n
    above = (p - np.cumsum(positives) + positives / 2)[which] / p
    auroc = float(below[positive].mean())
    # With one stay a subject this is DeLong's formula to the last factor n - 1.
    influence = np.where(
        positive,
        (below - auroc) / math.sqrt(p * max(p - 1, 1)),
        (above - auroc) / math.sqrt(n * max(n - 1, 1)),
    )
    return auroc, influence


def _squared_by_subject(influence: Floats, subjects: NDArray[np.int64]) -> float:
    _, person = np.unique(subjects, return_inverse=True)
    return float(np.square(np.bincount(person, influence)).sum())


def variance_from_cells(cells: ScoreCells, bins: int = BINS) -> float | None:
    """Variance of the pooled AUROC from cells; None where a class is missing."""
    p, n = cells.total_positives, cells.total_negatives
    if not p or not n:
        return None
    below, above = midranks(cells, bins)
    return _spread_of(below / n, cells.positives) + _spread_of(above / p, cells.negatives)


def _spread_of(component: Floats, counts: NDArray[np.int64]) -> float:
    total = int(counts.sum())
    mean = float(component @ counts) / total
    return float(np.square(component - mean) @ counts) / (total * max(total - 1, 1))


def auroc_estimate(bounded: Bounded, variance: float, positives: int, negatives: int) -> Estimate:
    """The AUROC with its bound and its interval, symmetric in log odds and so inside (0, 1).

    The quantile is Student's, for the variance is itself estimated (Brunner & Munzel 2000,
    https://doi.org/10.1002/(SICI)1521-4036(200001)42:1%3C17::AID-BIMJ17%3E3.0.CO;2-U), with one degree of
    freedom fewer than the smaller class: the least that Satterthwaite's rule can give.

    Where nothing varies (a score parts the classes, or almost), the variance is Hanley & McNeil's
    (https://doi.org/10.1148/radiology.143.1.7063747), half a stay of the smaller class off the edge.
    """
    low = _log_odds_interval(bounded.lower, variance, positives, negatives)[0]
    high = _log_odds_interval(bounded.upper, variance, positives, negatives)[1]
    return Estimate(
        bounded.estimate,
        (bounded.lower, bounded.upper),
        (min(low, bounded.lower), max(high, bounded.upper)),
    )


def log_odds_and_variance(
    auroc: float, variance: float, positives: int, negatives: int
) -> tuple[float, float]:
    """Log odds of an AUROC and their variance (delta method); finite also for 0 and 1."""
    inside, certain = auroc, variance
    if variance <= 0 or not 0 < auroc < 1:
        off = 0.5 / min(positives, negatives)
        inside = min(max(auroc, off), 1 - off)
        certain = _hanley_mcneil(inside, positives, negatives)
    return math.log(inside / (1 - inside)), certain / (inside * (1 - inside)) ** 2


def _hanley_mcneil(a: float, p: int, n: int) -> float:
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    return (a * (1 - a) + (p - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (p * n)


def _quantile(freedom: int) -> float:
    # Here: sites import this module, and never ask for an interval.
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1), 0.5 + CONFIDENCE / 2))


def _log_odds_interval(a: float, variance: float, p: int, n: int) -> tuple[float, float]:
    centre, spread = log_odds_and_variance(a, variance, p, n)
    reach = _quantile(min(p, n) - 1) * math.sqrt(spread)
    return tuple(1 / (1 + math.exp(-x)) for x in (centre - reach, centre + reach))  # type: ignore[return-value]
