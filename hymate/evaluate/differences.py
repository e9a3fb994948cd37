"""Differences and ratios of figures of independent groups, with intervals; many tests at once.

The interval of a difference is built from the two figures' own intervals ("MOVER": Zou & Donner 2008,
https://doi.org/10.1002/sim.3095; for shares with Wilson's it is Newcombe's hybrid score interval,
https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C873::AID-SIM779%3E3.0.CO;2-I). What the figures'
bounds leave open is added whole: it does not average out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from hymate.evaluate.estimates import CONFIDENCE, Estimate, Z


@dataclass(frozen=True)
class Comparison:
    """One figure less (or over) another: value, bound, interval, and the p-value of no difference.

    The interval's upper end is None where there is no limit.
    """

    value: float
    bound: tuple[float, float]
    interval: tuple[float, float | None]
    p: float | None = None
    p_adjusted: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "value": self.value,
            "bound": list(self.bound),
            "interval": list(self.interval),
            "p": self.p,
            "p_adjusted": self.p_adjusted,
        }


def difference(a: Estimate, b: Estimate, comparisons: int = 1) -> Comparison | None:
    """a - b with its interval; None where one of them has none.

    Args:
        comparisons: how many intervals should hold together (Bonferroni); 1: this one.
    """
    if a.interval is None or b.interval is None:
        return None
    low, high = a.bound[0] - b.bound[1], a.bound[1] - b.bound[0]
    down = math.hypot(a.bound[0] - a.interval[0], b.interval[1] - b.bound[1])
    up = math.hypot(a.interval[1] - a.bound[1], b.bound[0] - b.interval[0])
    wider = _quantile(comparisons) / Z
    interval = (low - down * wider, high + up * wider)
    return Comparison(a.value - b.value, (low, high), interval, _p(low, high, down, up))


def ratio(a: Estimate, b: Estimate, comparisons: int = 1) -> Comparison | None:
    """a / b with its interval, worked out on logarithms; None where b may be 0 or an interval is missing."""
    if a.interval is None or b.interval is None or b.value <= 0 or b.bound[0] <= 0 or a.value < 0:
        return None
    low, high = a.bound[0] / b.bound[1], a.bound[1] / b.bound[0]
    wider = _quantile(comparisons) / Z
    lower: float = 0.0
    upper: float | None = None
    if a.interval[0] > 0 and a.bound[0] > 0:
        down = math.hypot(math.log(a.bound[0] / a.interval[0]), math.log(b.interval[1] / b.bound[1]))
        lower = low * math.exp(-wider * down)
    if b.interval[0] > 0 and a.bound[1] > 0:
        up = math.hypot(math.log(a.interval[1] / a.bound[1]), math.log(b.bound[0] / b.interval[0]))
        upper = high * math.exp(wider * up)
    return Comparison(a.value / b.value, (low, high), (lower, upper))


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """Adjusted p-values (Holm 1979, https://www.jstor.org/stable/4615733): below 0.05 with at most 5 % chance
    of even one false finding among them all."""
    ordered = sorted(p_values, key=lambda key: p_values[key])
    adjusted: dict[Any, float] = {}
    highest = 0.0
    for place, key in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_values[key]))
        adjusted[key] = highest
    return adjusted


def mean_difference(differences: Sequence[tuple[float, float]]) -> Estimate | None:
    """Inverse-variance mean of the sites' (difference, variance), normal interval; None without any."""
    known = [(value, variance) for value, variance in differences if variance > 0]
    if not known:
        return None
    weight = sum(1 / variance for _, variance in known)
    value = sum(each / variance for each, variance in known) / weight
    reach = Z / math.sqrt(weight)
    return Estimate(value, (value, value), (value - reach, value + reach))


def _quantile(comparisons: int) -> float:
    return NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * max(comparisons, 1)))


def _p(low: float, high: float, down: float, up: float) -> float:
    """Two-sided, from the reach of the 95 % interval towards 0."""
    if low <= 0 <= high:
        return 1.0
    distance, reach = (low, down) if low > 0 else (-high, up)
    if reach <= 0:
        return 1.0
    return 2 * (1 - NormalDist().cdf(Z * distance / reach))
