"""How one code's values become the numbers a model sees: its plausible range and its scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from hymate.config import PlausibleConfig, RangeConfig
from hymate.data.quantiles import Distribution, mixture
from hymate.data.statistics import CodeStatistics

Scaling = Literal["standard", "robust", "quantile"]

# Values are float32 (7 digits): a spread this far below the mean is rounding left by a merge, not data.
NO_SPREAD = 1e-9
IQR_OF_NORMAL = 1.349
SCORES = np.linspace(-3.5, 3.5, 29)
"""Normal scores of `VocabularyEntry.knots`; beyond the outermost a quantile-scaled value does not go."""
BLOCK = 1 << 20  # values scaled at once: bounds memory


@dataclass(frozen=True)
class VocabularyEntry:
    """One code in `unit`, and what scaling needs. Never numeric: mean 0, std 1.

    `mean` and `std` are those of all sites' values as they came. `low` and `high` bound what is taken
    for a measurement (None: nothing does). `centre` and `spread` are the median and the interquartile
    range / 1.349, `knots` the quantiles of the normal `SCORES`; None and () where they are not in use or
    the sites' quantiles do not give them.
    """

    code: str
    unit: str
    mean: float
    std: float
    numeric: bool
    low: float | None = None
    high: float | None = None
    centre: float | None = None
    spread: float | None = None
    knots: tuple[float, ...] = ()

    @property
    def location_and_scale(self) -> tuple[float, float]:
        """(a, b) of the linear scaling (value - a) / b."""
        if self.centre is not None and self.spread is not None:
            return self.centre, self.spread
        return self.mean, self.std


def make_entry(statistics: CodeStatistics, scaling: Scaling, plausible: PlausibleConfig) -> VocabularyEntry:
    """The entry of a code's merged statistics.

    Standard deviation with ddof 1; no spread, or too few numbers to tell: 1. Raises nothing: what the
    quantiles do not give (a code of few people, one value that most have) is left out.
    """
    std = math.sqrt(statistics.m2 / (statistics.numeric - 1)) if statistics.numeric > 1 else 0.0
    if std <= NO_SPREAD * abs(statistics.mean):
        std = 1.0
    distribution = mixture(statistics.sketches)
    centre, spread = _centre_and_spread(distribution) if scaling == "robust" else (None, None)
    low, high = _plausible_range(distribution, plausible, plausible.codes.get(statistics.code, RangeConfig()))
    return VocabularyEntry(
        code=statistics.code,
        unit=statistics.unit,
        mean=statistics.mean,
        std=std,
        numeric=statistics.numeric > 0,
        low=low,
        high=high,
        centre=centre,
        spread=spread,
        knots=_knots(distribution) if scaling == "quantile" else (),
    )


def _centre_and_spread(distribution: Distribution | None) -> tuple[float | None, float | None]:
    if distribution is None or distribution.one_value_holds(0.25, 0.75):
        return None, None
    spread = (distribution.quantile(0.75) - distribution.quantile(0.25)) / IQR_OF_NORMAL
    return distribution.quantile(0.5), spread


def _knots(distribution: Distribution | None) -> tuple[float, ...]:
    if distribution is None or distribution.one_value_holds(0.25, 0.75):
        return ()
    normal = NormalDist()
    return tuple(distribution.quantile(normal.cdf(float(score))) for score in SCORES)


def _plausible_range(
    distribution: Distribution | None, plausible: PlausibleConfig, by_hand: RangeConfig
) -> tuple[float | None, float | None]:
    """Bounds by hand, else by quantiles; none from quantiles of a code with hardly more than one value."""
    if plausible.outside == "keep":
        return None, None
    low, high = by_hand.low, by_hand.high
    if distribution is not None and distribution.places >= MIN_PLACES:
        lowest, highest = distribution.quantile(plausible.low), distribution.quantile(plausible.high)
        reach = plausible.margin * (highest - lowest)
        low = lowest - reach if low is None else low
        high = highest + reach if high is None else high
    if low is not None and high is not None and low >= high:
        # One bound by hand beyond the other's quantile: what a person said stands.
        return by_hand.low, by_hand.high
    return low, high


MIN_PLACES = 4
"""Bins with values in them below which quantiles say nothing of a tail (0/1 codes, a handful of people)."""


@dataclass(frozen=True)
class Scaler:
    """The scales of all entries, by position (1..; 0: no code)."""

    entries: tuple[VocabularyEntry, ...]
    clip_z: float | None

    def scaled(
        self, value: npt.NDArray[np.float32], position: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Each row's scaled value, 0.0 where there is no number; and whether it was out of its range.

        Computed in float64. A value out of its range is scaled as the nearer bound.
        """
        score = np.zeros(len(value), np.float32)
        outside = np.zeros(len(value), np.bool_)
        tables = self._tables()
        for begin in range(0, len(value), BLOCK):
            rows = slice(begin, begin + BLOCK)
            score[rows], outside[rows] = self._block(value[rows].astype(np.float64), position[rows], *tables)
        return score, outside

    def _tables(self) -> Sequence[npt.NDArray[np.float64]]:
        """Low, high, location and scale by position."""
        return tuple(
            np.array(column, np.float64)
            for column in zip(
                (-math.inf, math.inf, 0.0, 1.0),
                *(
                    (
                        -math.inf if entry.low is None else entry.low,
                        math.inf if entry.high is None else entry.high,
                        *entry.location_and_scale,
                    )
                    for entry in self.entries
                ),
                strict=True,
            )
        )

    def _block(
        self,
        value: npt.NDArray[np.float64],
        position: npt.NDArray[np.int32],
        low: npt.NDArray[np.float64],
        high: npt.NDArray[np.float64],
        location: npt.NDArray[np.float64],
        scale: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        least, most = low[position], high[position]
        outside = (value < least) | (value > most)
        value = np.clip(value, least, most)
        score = (value - location[position]) / scale[position]
        if any(entry.knots for entry in self.entries):
            order = np.argsort(position, kind="stable")
            ends = np.cumsum(np.bincount(position, minlength=len(self.entries) + 1))
            for number, entry in enumerate(self.entries, start=1):
                rows = order[ends[number - 1] : ends[number]]
                if entry.knots and len(rows):
                    score[rows] = np.interp(value[rows], entry.knots, SCORES)
        if self.clip_z is not None:
            score = np.clip(score, -self.clip_z, self.clip_z)
        score[~np.isfinite(score)] = 0.0
        return score, outside
