"""A figure with what is certain about it and what is likely, and intervals of shares.

Two things make a federated figure uncertain: that it comes from cells (a proven *bound* on the figure that
pooled scores would have given), and that the patients are a sample (an *interval*). The interval here
always covers both: its ends are those of the sample's interval around the ends of the bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


@dataclass(frozen=True)
class Estimate:
    """A figure's value, the bound on the pooled figure (equal ends: exact), and its 95 % interval.

    interval None: nothing can be said of it.
    """

    value: float
    bound: tuple[float, float]
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """{value, bound: [lower, upper], interval: [lower, upper] or null}."""
        return {
            "value": self.value,
            "bound": list(self.bound),
            "interval": None if self.interval is None else list(self.interval),
        }

    @property
    def standard_error(self) -> float | None:
        """Half the interval's width (what the bound adds included) over the normal quantile."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / (2 * Z)


def exactly(value: float, standard_error: float | None = None) -> Estimate:
    """A figure known exactly, with a normal interval."""
    if standard_error is None:
        return Estimate(value, (value, value))
    reach = Z * standard_error
    return Estimate(value, (value, value), (value - reach, value + reach))


def wilson(successes: float, trials: float, z: float = Z) -> tuple[float, float]:
    """Interval of a share (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953); trials > 0."""
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def share_between(low: float, middle: float, high: float, trials: float) -> Estimate | None:
    """A share whose successes lie surely in [low, high]; None without trials."""
    if not trials:
        return None
    return Estimate(
        middle / trials, (low / trials, high / trials), (wilson(low, trials)[0], wilson(high, trials)[1])
    )
