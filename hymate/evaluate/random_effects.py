"""What to expect at a hospital that took no part: the sites' figures as draws from many sites'.

Model: y_i = mu + u_i + e_i, u_i ~ N(0, tau^2), e_i ~ N(0, v_i) with v_i known. tau^2 by restricted
maximum likelihood (Viechtbauer 2005, https://doi.org/10.3102/10769986030003261); the interval of mu by
Hartung & Knapp (2001, https://doi.org/10.1002/sim.1009; IntHout et al. 2014,
https://doi.org/10.1186/1471-2288-14-25); the prediction interval for a new site by Higgins et al. (2009,
https://doi.org/10.1111/j.1467-985X.2008.00552.x).
statsmodels' `combine_effects` has neither restricted maximum likelihood nor prediction intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hymate.evaluate.estimates import CONFIDENCE

GRID = 60


@dataclass(frozen=True)
class RandomEffects:
    """Mean over sites and its interval, tau^2, share of the spread that is between sites (I^2), and the
    interval in which a new site's true value lies (None for fewer than three sites).

    With few sites that differ little, the prediction interval covers somewhat less than it says (Partlett &
    Riley 2017, https://doi.org/10.1002/sim.7140): 90 % of new sites from six."""

    sites: int
    mean: float
    interval: tuple[float, float]
    tau2: float
    i2: float
    prediction: tuple[float, float] | None


def random_effects(values: Sequence[float], variances: Sequence[float]) -> RandomEffects | None:
    """Summary of at least two sites' values with their sampling variances (> 0); None for fewer."""
    # Here: a site imports what shares modules with this, and scipy takes half a second.
    from scipy import stats

    y, v = np.asarray(values, np.float64), np.asarray(variances, np.float64)
    k = len(y)
    if k < 2:
        return None
    tau2 = restricted_maximum_likelihood(y, v)
    w = 1 / (v + tau2)
    mean = float(w @ y / w.sum())
    scatter = float(w @ np.square(y - mean)) / (k - 1)
    # Never narrower than the usual interval: sites closer to each other than chance are luck, not knowledge.
    error = math.sqrt(max(scatter, 1.0) / w.sum())
    tail = 0.5 + CONFIDENCE / 2
    reach = float(stats.t.ppf(tail, k - 1)) * error
    prediction = None
    if k >= 3:
        far = float(stats.t.ppf(tail, k - 2)) * math.sqrt(tau2 + error**2)
        prediction = (mean - far, mean + far)
    fixed = 1 / v
    typical = float((k - 1) * fixed.sum() / (fixed.sum() ** 2 - np.square(fixed).sum()))
    return RandomEffects(k, mean, (mean - reach, mean + reach), tau2, tau2 / (tau2 + typical), prediction)


def restricted_maximum_likelihood(y: np.ndarray, v: np.ndarray) -> float:
    """tau^2 >= 0. The likelihood may have several maxima, that at 0 among them: the highest of a grid is
    refined between its neighbours."""
    from scipy import optimize

    largest = float(np.ptp(y)) ** 2  # more than the values differ by cannot lie between sites
    grid: list[float] = [0.0, *(np.geomspace(1e-4, 1.0, GRID) * largest).tolist()]
    best = max(range(len(grid)), key=lambda place: _log_likelihood(y, v, grid[place]))
    found = optimize.minimize_scalar(
        lambda tau2: -_log_likelihood(y, v, tau2),
        bounds=(grid[max(best - 1, 0)], grid[min(best + 1, GRID)]),
        method="bounded",
        options={"xatol": 1e-9 * (1 + grid[best])},
    )
    return max(float(found.x), grid[best], key=lambda tau2: _log_likelihood(y, v, tau2))


def _log_likelihood(y: np.ndarray, v: np.ndarray, tau2: float) -> float:
    """Restricted, but for a constant."""
    w = 1 / (v + tau2)
    mean = w @ y / w.sum()
    return float(0.5 * (np.log(w).sum() - np.log(w.sum()) - w @ np.square(y - mean)))
