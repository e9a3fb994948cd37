"""How one site's patients differ from all others', from what the sites said of their codes.

Nothing more is asked of the sites for it. People, not observations, count as independent here: the variance
of a mean is that of one value a person. Several values of a person tell a little more, so intervals are
rather too wide than too narrow.
"""

from __future__ import annotations

import math

from hymate.data.statistics import CodeStatistics
from hymate.evaluate.estimates import Estimate, Z

LARGE = 0.2
"""A standardised difference from which groups are commonly said to differ (Cohen's "small" effect; Austin
2009, https://doi.org/10.1002/sim.3697, already asks about 0.1)."""


def standardised_difference(here: CodeStatistics, others: CodeStatistics) -> Estimate | None:
    """Mean value here less mean value elsewhere, over the root mean square of both standard deviations.

    The interval is normal, each side with its own variance (Bonett 2008,
    https://doi.org/10.1037/1082-989X.13.2.99). None where a side has fewer than two people with numbers, or
    nothing varies.
    """
    a, b = _variance(here), _variance(others)
    if a is None or b is None or a + b <= 0:
        return None
    return _standardised(
        here.mean - others.mean, a, b, here.numeric_subjects, others.numeric_subjects, normal=True
    )


def share_difference(having: int, people: int, others_having: int, others: int) -> Estimate | None:
    """The same of shares of people, whose variance is p (1 - p) (Austin 2009); None without people, or where
    everybody has it or nobody."""
    if min(people, others) < 2:
        return None
    p, q = having / people, others_having / others
    a, b = p * (1 - p), q * (1 - q)
    return _standardised(p - q, a, b, people, others, normal=False) if a + b > 0 else None


def _variance(code: CodeStatistics) -> float | None:
    if code.numeric_subjects < 2:
        return None
    return code.m2 / (code.numeric - 1)


def _standardised(apart: float, a: float, b: float, n: int, m: int, *, normal: bool) -> Estimate:
    """Args: a, b: variances; n, m: people; normal: the variances are estimates of a normal law's."""
    middle = (a + b) / 2
    value = apart / math.sqrt(middle)
    spread = (a / n + b / m) / middle
    if normal:
        spread += value**2 / (8 * middle**2) * (a**2 / n + b**2 / m)
    reach = Z * math.sqrt(spread)
    return Estimate(value, (value, value), (value - reach, value + reach))
