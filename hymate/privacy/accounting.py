"""Epsilon of noisy steps taken together, and the noise that a budget asks for.

Steps of any rates and noises compose. Two accountants of Opacus do the numerics, and both give upper bounds:

* PRV (Gopi, Lee, Wutschitz 2021, https://arxiv.org/abs/2106.02848): the distribution of the privacy loss,
  composed by Fourier transform; tight.
* RDP (Mironov 2017, https://arxiv.org/abs/1702.07476; Mironov et al. 2019, https://arxiv.org/abs/1908.10530;
  converted as in Balle et al. 2020, theorem 21, https://arxiv.org/abs/1905.09982): looser, never at a loss.

PRV's known faults (an error for large or small epsilon, https://github.com/meta-pytorch/opacus/issues/601;
infinity for very little noise; gigabytes of memory for a large epsilon; a rounding error that outweighs a
small delta) are looked for here: then RDP's bound stands, and `Accounted.why` says why.
"""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hymate.errors import InputFault
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend

Accountant = Literal["prv", "rdp"]
Merged = list[tuple[float, float, int]]
"""(noise multiplier, sampling rate, steps), as Opacus' accountants keep their history."""

ORDERS = (
    *(1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.2, 2.5, 2.8, 3.0, 3.3, 3.6, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0),
    *map(float, range(9, 64)),
    *(64.0, 80.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0),
)
"""Orders of Renyi divergence: as Opacus', fewer of the small ones, which take long, and larger ones for small
epsilon."""
PRV_CEILING = 60.0
"""Beyond this epsilon PRV is slow and gains nothing that anyone could call privacy."""
PRV_KINDS = 64
"""PRV takes each pair of rate and noise by itself; with more of them RDP answers in reasonable time."""
PRV_POINTS = 1 << 20
"""Points of PRV's grid at most: some 100 MB, and half a second."""
FINEST, COARSEST = 1e-4, 0.5
"""Bounds on PRV's error of epsilon: Opacus doubts its domain for errors of 1 and more."""
GRID = 1000
"""A noise multiplier that was solved for is a multiple of 1/GRID."""
LEAST_NOISE, MOST_NOISE = 1e-3, 1e3
"""Less noise is taken for none (Opacus' RDP never ends for some such), more for this much (its
sums round to nothing)."""


@dataclass(frozen=True)
class Accounted:
    """An upper bound on epsilon and where it comes from."""

    epsilon: float
    """Infinite where a step has no noise, or next to none."""
    accountant: Accountant
    why: str = ""
    """Where PRV was asked for and is not the one: the reason."""


def epsilon_of(spends: Sequence[Spend], delta: float, accountant: Accountant = "prv") -> float:
    """Epsilon at `delta` of all `spends` together; `account` also tells which accountant spoke."""
    return account(spends, delta, accountant).epsilon


def account(spends: Sequence[Spend], delta: float, accountant: Accountant = "prv") -> Accounted:
    """Upper bound on epsilon at `delta` of all `spends` together, whatever their order.

    Raises:
        ValueError: delta is not between 0 and 1.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta lies between 0 and 1, not {delta}")
    merged = _merged(spends)
    if not merged:
        return Accounted(0.0, accountant)
    if merged[0][0] < LEAST_NOISE:
        return Accounted(math.inf, accountant)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of orders and integrals at their ends; what counts is checked
        bound = _by_rdp(merged, delta)
        if accountant == "rdp":
            return Accounted(bound, "rdp")
        try:
            tight = _by_prv(merged, delta, bound)
        except _CannotAccount as fault:
            logging.getLogger("hymate").info("epsilon is RDP's bound: %s", fault)
            return Accounted(bound, "rdp", str(fault))
    if tight > bound:
        return Accounted(bound, "rdp", "its bound is the smaller one here")
    return Accounted(tight, "prv")


def renyi_of(spends: Sequence[Spend]) -> dict[float, float]:
    """Renyi divergence of all `spends` together, by order: what RDP converts to epsilon."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return dict(zip(ORDERS, _divergences(_merged(spends)), strict=True))


def noise_for(target_epsilon: float, delta: float, planned: Sequence[tuple[float, int]]) -> float:
    """A noise multiplier that keeps all of `planned` within the target, and hardly more than that.

    What is returned was accounted: `epsilon_of` the planned steps with it is at most the target. It is a
    multiple of 1/1000, and a per mille or so above the smallest that would do.

    Args:
        planned: sampling rate and steps of every phase; all get the same noise.

    Raises:
        InputFault: no noise of a reasonable size does.
        ValueError: the target is not positive, or delta not between 0 and 1.
    """
    if not target_epsilon > 0.0:
        raise ValueError(f"a target epsilon is positive, not {target_epsilon}")
    return _noise_for(float(target_epsilon), float(delta), tuple(sorted(planned)))


@functools.lru_cache(maxsize=64)
def _noise_for(target_epsilon: float, delta: float, planned: tuple[tuple[float, int], ...]) -> float:
    from scipy.optimize import brentq

    def epsilon_with(noise: float) -> float:
        return epsilon_of([Spend(SAMPLED_GAUSSIAN, rate, noise, steps) for rate, steps in planned], delta)

    def excess(log_noise: float) -> float:
        """Negative where this noise keeps within the target; finite, so that it can be interpolated."""
        return math.log(min(max(epsilon_with(math.exp(log_noise)) / target_epsilon, 1e-9), 1e9))

    if epsilon_with(0.0) <= target_epsilon:  # nothing is drawn
        return 0.0
    high = 0.0
    while excess(high) > 0.0:
        high += 1.0
        if high > math.log(MOST_NOISE):
            raise InputFault(
                "privacy.target_epsilon",
                f"no noise brings the planned steps down to {target_epsilon:g} at delta {delta:g}",
                "plan fewer rounds or a smaller batch, or allow more",
            )
    low = high - 0.5
    while excess(low) <= 0.0:
        low, high = low - 0.5, low
    found = math.ceil(math.exp(brentq(excess, low, high, xtol=5e-4, rtol=1e-9)) * GRID)
    step = 1
    while epsilon_with(found / GRID) > target_epsilon:
        found, step = found + step, 2 * step
    return found / GRID


class _CannotAccount(Exception):
    """PRV cannot say; the text says why."""


def _merged(spends: Sequence[Spend]) -> Merged:
    """Steps by noise and rate, least noise first; what cannot cost anything is left out."""
    steps: Counter[tuple[float, float]] = Counter()
    for spend in spends:
        if spend.steps and spend.sampling_rate:
            noise = min(float(spend.noise_multiplier), MOST_NOISE)
            steps[noise, float(spend.sampling_rate)] += spend.steps
    return [(noise, rate, number) for (noise, rate), number in sorted(steps.items())]


def _by_rdp(merged: Merged, delta: float) -> float:
    from opacus.accountants.analysis.rdp import get_privacy_spent

    epsilon, _ = get_privacy_spent(orders=list(ORDERS), rdp=_divergences(merged), delta=delta)
    return max(0.0, float(epsilon))


def _divergences(merged: Merged) -> list[float]:
    """Renyi divergence at each of `ORDERS`; one that Opacus cannot compute counts as infinite."""
    from opacus.accountants.analysis.rdp import compute_rdp

    def divergence(noise: float, rate: float, steps: int, order: float) -> float:
        try:
            found = float(compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=order))
        except (ArithmeticError, ValueError):
            return math.inf
        return math.inf if math.isnan(found) else max(found, 0.0)

    return [float(sum(divergence(*part, order) for part in merged)) for order in ORDERS]


def _by_prv(merged: Merged, delta: float, bound: float) -> float:
    """PRV's upper bound, three tries: its errors often vanish on another grid.

    Args:
        bound: RDP's epsilon, which says how fine a grid is worth its while.
    """
    if bound > PRV_CEILING:
        raise _CannotAccount(f"epsilon is beyond {PRV_CEILING:g}")
    if len(merged) > PRV_KINDS:
        raise _CannotAccount(f"more than {PRV_KINDS} different pairs of rate and noise")
    last = ""
    for coarser in (1.0, 1.7, 3.1):
        try:
            return _on_grid(merged, delta, max(FINEST, 0.002 * bound * coarser))
        except (ArithmeticError, IndexError, RuntimeError, ValueError) as fault:
            last = str(fault).rstrip(".") or type(fault).__name__
    raise _CannotAccount(f"PRV says: {last}")


def _on_grid(merged: Merged, delta: float, error: float) -> float:
    from opacus.accountants.analysis.prv import (
        Domain,
        PoissonSubsampledGaussianPRV,
        TruncatedPrivacyRandomVariable,
        compose_heterogeneous,
        compute_safe_domain_size,
        discretize,
    )

    losses = [PoissonSubsampledGaussianPRV(rate, noise) for noise, rate, _ in merged]
    steps = [number for _, _, number in merged]
    delta_error = delta / 1000
    length = compute_safe_domain_size(losses, steps, error, delta_error)
    # Mesh as Gopi et al. 2021, theorem 5.5, and no more points than memory is worth.
    spread = math.sqrt(sum(steps) * math.log(12 / delta_error) / 2)
    error = max(error, 2.0 * length * spread / PRV_POINTS)
    if not error < COARSEST:
        raise _CannotAccount("its grid would be too coarse for so many steps")
    domain = Domain.create_aligned(-length, length, error / spread)
    parts = [
        discretize(TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max), domain)
        for loss in losses
    ]
    composed = compose_heterogeneous(parts, steps)
    mass = composed.pmf
    if not (np.isfinite(mass).all() and abs(float(mass.sum()) - 1.0) < 1e-6):
        raise ValueError("the distribution of the privacy loss does not sum to one")
    # What the transforms rounded shows where probabilities are negative; delta pays for it.
    rounding = np.finfo(np.float64).eps * len(mass) - 2.0 * float(mass[mass < 0].sum())
    if rounding > delta / 10:
        raise _CannotAccount("rounding errors outweigh so small a delta")
    lower, estimate, upper = composed.compute_epsilon(delta - rounding, delta_error, error)
    if not (math.isfinite(upper) and lower <= estimate <= upper):
        raise ValueError("its bounds contradict each other")
    return max(0.0, float(upper))
