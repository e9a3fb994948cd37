"""Two models on the same stays: the difference of their AUROCs, by site and over sites.

The sites tell the difference and its variance (`hymate.evaluate.delong.auroc_difference`), which knows that
both models were scored on the same patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hymate.evaluate.differences import Comparison
from hymate.evaluate.estimates import CONFIDENCE

FEWEST = 5
"""Stays of the smaller class below which a variance says nothing."""


@dataclass(frozen=True)
class Paired:
    """AUROC of one model less that of another at one site. `smaller`: stays of its smaller class."""

    value: float
    variance: float
    smaller: int


def paired_comparison(paired: Paired) -> Comparison | None:
    """The difference with Student's interval (one degree of freedom fewer than the smaller class, as
    `delong.auroc_estimate`); None below `FEWEST` stays of a class."""
    if paired.smaller < FEWEST:
        return None
    return _comparison(paired.value, paired.variance, paired.smaller - 1)


def mean_over_sites(sites: Sequence[Paired]) -> Comparison | None:
    """The plain mean of the sites' differences, each site counting the same; None without any.

    It is not weighted by precision: where two models are nearly equal both the difference and its variance
    are small, and such a mean would lean towards no difference.
    """
    known = [site for site in sites if site.smaller >= FEWEST]
    if not known:
        return None
    value = sum(site.value for site in known) / len(known)
    parts = [site.variance / len(known) ** 2 for site in known]
    # Satterthwaite's, with each site's own degrees of freedom.
    spread = sum(part**2 / (site.smaller - 1) for part, site in zip(parts, known, strict=True))
    freedom = sum(parts) ** 2 / spread if spread else known[0].smaller - 1
    return _comparison(value, sum(parts), freedom)


def mean_over_seeds(values: Sequence[float]) -> Comparison | None:
    """The mean of one figure, or of one difference, over runs that differ in their seed alone.

    The interval is Student's over the runs: what chance in training does to it, on these very patients.
    None for fewer than two runs.
    """
    runs = len(values)
    if runs < 2:
        return None
    mean = sum(values) / runs
    variance = sum((value - mean) ** 2 for value in values) / (runs - 1)
    return _comparison(mean, variance / runs, runs - 1)


def _comparison(value: float, variance: float, freedom: float) -> Comparison:
    # Here: sites import what shares modules with this, and scipy takes half a second.
    from scipy.special import stdtr, stdtrit

    error = math.sqrt(variance)
    reach = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(value) / error)) if error else float(value == 0)
    return Comparison(value, (value, value), (value - reach, value + reach), p)
