"""Whether a predicted 30 % comes true in 30 of 100, for one weighting of the rows or for many at once.

brier       mean of (probability - label)^2
ece         sum over `BINS` intervals of equal width on [0, 1] of (share of rows there) x |mean
            probability - share of positives| (Guo et al. 2017, https://arxiv.org/abs/1706.04599, eq. 3)
slope       b of: log odds of the label = a + b x log odds of the probability; 1 is ideal, below 1 the
            probabilities are too extreme
intercept   a with b held at 1 ("calibration in the large"); 0 is ideal, below 0 the probabilities are
            too high (Van Calster et al. 2016, https://doi.org/10.1016/j.jclinepi.2015.12.005)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 10
NAMES = ("brier", "ece", "calibration_slope", "calibration_intercept")
CLOSEST = 1e-6  # log odds of 0 and 1 are infinite: probabilities are kept this far off
STEPS = 50
ENOUGH = 1e-7  # of a step: Newton's next one would be smaller by orders
FAR = 0.5  # a step so long may overshoot
STEEPEST = 1e3  # a slope beyond it means that the classes are separated: there is no finite one


def calibration_figures(labels: Floats, probabilities: Floats, weights: Floats) -> dict[str, Floats]:
    """labels, probabilities (n,), weights (B, n) -> each of `NAMES` as (B,).

    NaN where a resample is empty, and for slope and intercept where a class is missing or a score
    parts the classes.
    """
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = weights / total[:, None]
    slope, intercept = _recalibrations(labels, probabilities, weights)
    return {
        "brier": share @ np.square(probabilities - labels),
        "ece": _ece(labels, probabilities, share),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
    }


def _ece(labels: Floats, probabilities: Floats, share: Floats) -> Floats:
    bin_of = np.clip((probabilities * BINS).astype(np.int64), 0, BINS - 1)
    member = (bin_of[:, None] == np.arange(BINS)).astype(np.float64)  # (n, BINS)
    gap = (share * (probabilities - labels)) @ member  # (B, BINS)
    error: Floats = np.abs(gap).sum(axis=1)
    return error


def _recalibrations(labels: Floats, probabilities: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Slope (with a free intercept) and intercept (with slope 1) under each weighting, (B,) each."""
    p = np.clip(probabilities, CLOSEST, 1 - CLOSEST)
    x = np.log(p) - np.log1p(-p)
    sloped, level = np.column_stack([np.ones_like(x), x]), np.ones((len(x), 1))
    nothing = np.zeros_like(x)
    # All rows together first: from their solution a resample's is two or three steps away.
    everything = np.ones_like(x)
    near_slope = _fit(sloped, nothing, labels, everything, np.zeros(2))
    near_level = _fit(level, x, labels, everything, np.zeros(1))
    slopes, intercepts = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    for i, w in enumerate(weights):
        if not 0 < w @ labels < w.sum():
            continue
        if np.ptp(x[w > 0]) > 0:  # one probability for all: nothing to recalibrate by
            slopes[i] = _fit(sloped, nothing, labels, w, near_slope)[1]
        intercepts[i] = _fit(level, x, labels, w, near_level)[0]
    return slopes, intercepts


def _fit(design: Floats, offset: Floats, y: Floats, w: Floats, start: Floats) -> Floats:
    """Coefficients of a weighted logistic regression, by Newton's method; NaN without convergence."""
    beta: Floats = start if np.isfinite(start).all() else np.zeros(design.shape[1])
    likelihood = -np.inf
    step = np.full_like(beta, np.inf)
    for _ in range(STEPS):
        log_odds = design @ beta + offset
        if np.abs(step).max() > FAR:
            now = float(w @ (y * log_odds - np.logaddexp(0.0, log_odds)))
            if now < likelihood - 1e-9 * abs(likelihood):
                step = step / 2  # overshot to where the curve is flat
                beta = beta - step
                continue
            likelihood = now
        fitted = (1 + np.tanh(log_odds / 2)) / 2
        gradient = design.T @ (w * (y - fitted))
        curvature = (design * (w * fitted * (1 - fitted))[:, None]).T @ design
        try:
            step = np.asarray(np.linalg.solve(curvature, gradient), np.float64)
        except np.linalg.LinAlgError:
            break
        if np.abs(beta).max() > STEEPEST or not np.isfinite(step).all():
            break
        beta = beta + step
        if np.abs(step).max() < ENOUGH * max(1.0, float(np.abs(beta).max())):
            return beta
    return np.full(design.shape[1], np.nan)
