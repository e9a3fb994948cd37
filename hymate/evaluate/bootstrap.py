"""Intervals by resampling subjects: a subject's stays are drawn together, for they resemble each other.

Percentile bootstrap (Efron 1979, https://doi.org/10.1214/aos/1176344552): draw as many subjects as there
are, with replacement, compute the figure, repeat; the interval is cut from the sorted figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

AT_ONCE = 50  # resamples computed together: bounds memory, does not change the draws


@dataclass(frozen=True)
class BootstrapSettings:
    """resamples 0: no intervals."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """A value, and where it lies in `confidence` of the resamples; None: not defined, or not asked for."""

    value: float | None
    lower: float | None = None
    upper: float | None = None


def resampled_weights(
    subjects: NDArray[np.int64], settings: BootstrapSettings
) -> Iterator[NDArray[np.float64]]:
    """How often each row is drawn, (at most `AT_ONCE`, n) at a time, `settings.resamples` in all."""
    distinct, member = np.unique(subjects, return_inverse=True)
    rng = np.random.default_rng(settings.seed)
    for begin in range(0, settings.resamples, AT_ONCE):
        count = min(AT_ONCE, settings.resamples - begin)
        drawn = rng.integers(0, len(distinct), (count, len(distinct)))
        times = np.stack([np.bincount(row, minlength=len(distinct)) for row in drawn])
        yield times[:, member].astype(np.float64)


def with_intervals(
    measure: Callable[[Floats], Mapping[str, Floats]],
    subjects: NDArray[np.int64],
    settings: BootstrapSettings,
) -> dict[str, Figure]:
    """Each figure of `measure` on the rows as they are, and its interval.

    `measure` maps weights (B, n) to figures (B,), NaN where one is not defined. A resample where a
    figure is not defined says nothing about that figure's interval.
    """
    values = {name: _number(each[0]) for name, each in measure(np.ones((1, len(subjects)))).items()}
    parts = [measure(weights) for weights in resampled_weights(subjects, settings)]
    tail = (1 - settings.confidence) / 2
    figures = {}
    for name, value in values.items():
        drawn = np.concatenate([part[name] for part in parts]) if parts else np.zeros(0)
        drawn = drawn[np.isfinite(drawn)]
        if value is None or not drawn.size:
            figures[name] = Figure(value)
        else:
            lower, upper = np.quantile(drawn, [tail, 1 - tail])
            figures[name] = Figure(value, float(lower), float(upper))
    return figures


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
