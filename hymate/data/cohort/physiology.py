"""Latent processes of each stay: what is wrong with the patient, hour by hour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hymate.data.cohort.codes import PROCESSES
from hymate.data.cohort.sizes import HOURS

Floats = npt.NDArray[np.float64]

FRAILTY_SD = 0.4
LEVEL_SD = 0.7
TREND_SD = 1.0
FLUCTUATION_SD = 0.4
MEMORY_H = 6.0
"""The fluctuation forgets within this time."""


@dataclass(frozen=True)
class Physiology:
    """x_p(t) = level_p + trend_p t / 48 h + OU_p(t), in standard units, larger = sicker.

    `level`, `trend` (stays, processes); `x` (stays, processes, hours + 1).
    """

    level: Floats
    trend: Floats
    x: Floats

    @property
    def end(self) -> Floats:
        """Where the processes end, fluctuation aside: (stays, processes)."""
        return self.level + self.trend

    @property
    def severity(self) -> Floats:
        """Mean over the processes, (stays, hours)."""
        return np.asarray(self.x[..., :HOURS].mean(axis=1))


def draw_physiology(
    rng: np.random.Generator, case_mix: Floats, shift: Floats, stays: int
) -> tuple[Physiology, Floats]:
    """The processes of `stays` patients, and where they would have ended without `shift`.

    `case_mix` and `shift` (processes,): means of the levels; the end is (stays, processes).
    """
    shape = (stays, len(PROCESSES))
    level, trend = draw_course(rng, case_mix, stays)
    keep = np.exp(-1.0 / MEMORY_H)
    fluctuation = np.empty((*shape, HOURS + 1))
    fluctuation[..., 0] = rng.normal(0.0, FLUCTUATION_SD, shape)
    for hour in range(1, HOURS + 1):
        fluctuation[..., hour] = keep * fluctuation[..., hour - 1] + rng.normal(
            0.0, FLUCTUATION_SD * np.sqrt(1.0 - keep**2), shape
        )
    progress = np.arange(HOURS + 1) / HOURS
    shifted = level + shift
    x = shifted[..., None] + trend[..., None] * progress + fluctuation
    return Physiology(shifted, trend, x), level + trend


def draw_course(rng: np.random.Generator, case_mix: Floats, stays: int) -> tuple[Floats, Floats]:
    """Level and trend, (stays, processes) each: what the labels listen to."""
    shape = (stays, len(PROCESSES))
    frailty = rng.normal(0.0, FRAILTY_SD, (stays, 1))
    level = case_mix + frailty + rng.normal(0.0, LEVEL_SD, shape)
    return level, rng.normal(0.0, TREND_SD, shape)
