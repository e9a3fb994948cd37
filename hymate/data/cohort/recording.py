"""What the hospital writes down of its patients: irregular, noisy views of the latent processes.

A reading of code c in hour t is mean_c + spread_c (loadings_c . x(t) + device_c + offset_stay + white),
rounded and clipped. Rounds of a stream come at `rate exp(0.35 severity(t))` an hour: sicker patients
are measured more often.

The marker (task `deterioration`) reads 100 + 10 (middle + slope (t / 48 h - 1/2) + white), slope ~ N(0, 1)
independent of middle, at times that are as likely as their mirror images. Turning a record back to
front therefore turns slope's sign and nothing else: whatever ignores the order of the readings has an
AUROC of exactly 0.5 on a label that listens to slope.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.cohort.codes import (
    MARKER,
    MARKER_RATE,
    MEASUREMENTS,
    RATES,
    Measurement,
    decoy,
)
from hymate.data.cohort.config import SyntheticConfig
from hymate.data.cohort.physiology import Floats, Physiology
from hymate.data.cohort.sizes import HOURS, TAKEN, TRIPLETS_A_STAY
from hymate.data.cohort.streams import Stream, generator

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

WHITE_NOISE = 0.3
"""Of a single reading, in units of a code's spread."""
STAY_OFFSET = 0.2
"""A sensor's bias that lasts the whole stay, in the same units."""
SICKER_MORE_OFTEN = 0.35
"""Log rate per unit of mean severity."""
MARKER_MIDDLE_SD = 1.0
MARKER_WHITE = 0.5
_SECONDS = HOURS * 3600
_BESIDE = 100  # numbers the marker and the decoys apart from the measurements


@dataclass(frozen=True)
class Circumstances:
    """What shapes a hospital's records besides its patients.

    `device` code -> offset in spreads; `unmeasured` codes; `noise` (stays,) factor of each stay's noise;
    `lost` (stays,) chance that an observation of the stay is lost, whatever it says.
    """

    device: Mapping[str, float]
    unmeasured: frozenset[str]
    noise: Floats
    lost: Floats


@dataclass(frozen=True)
class _Rounds:
    """Times at which a stream was measured: stay and second since admission, each (rounds,)."""

    stay: Integers
    second: Integers


@dataclass(frozen=True)
class _Readings:
    """One code's readings, (readings,) each."""

    code: str
    stay: Integers
    second: Integers
    value: Floats

    def where(self, kept: Booleans) -> _Readings:
        return _Readings(self.code, self.stay[kept], self.second[kept], self.value[kept])

    def __add__(self, more: _Readings) -> _Readings:
        return _Readings(
            self.code,
            np.concatenate([self.stay, more.stay]),
            np.concatenate([self.second, more.second]),
            np.concatenate([self.value, more.value]),
        )


def draw_intensity(config: SyntheticConfig, k: int, stays: int) -> Floats:
    """How many times as often as usual each stay is measured, (stays,)."""
    asked = config.observations
    rng = generator(config.seed, k, Stream.INTENSITY)
    own = asked.factor * np.exp(asked.spread * rng.normal(size=stays) - asked.spread**2 / 2)
    long = rng.random(stays) < asked.long_share
    return np.where(long, asked.long_count / TRIPLETS_A_STAY, own)


def draw_slope(config: SyntheticConfig, k: int, stays: int) -> Floats:
    """How the marker moves, in standard units, (stays,)."""
    return generator(config.seed, k, Stream.MARKER, 1).normal(size=stays)


def record(
    rng: np.random.Generator,
    config: SyntheticConfig,
    k: int,
    patients: Physiology,
    slope: Floats,
    circumstances: Circumstances,
) -> pl.DataFrame:
    """Rows `stay`, `second` since admission (0 to 172,799), `code`, `numeric_value`."""
    parts = []
    for number, part in enumerate(_measured(rng, config, k, patients, circumstances)):
        lost = _lost(config, k, number, part, patients.severity, circumstances)
        parts.append(part.where(~lost | (part.second < 3600)))  # the first hour stays: no stay is empty
    for number, part in _beside(config, k, slope, circumstances):
        parts.append(part.where(~_lost_of_group(config, k, _BESIDE + number, part, circumstances)))
    # Thousands of small frames would cost more than the draws: arrays first, one frame at the end.
    codes = pl.Series([part.code for part in parts], dtype=pl.String)
    which = np.repeat(np.arange(len(parts)), [len(part.stay) for part in parts])
    return pl.DataFrame(
        {
            "stay": np.concatenate([part.stay for part in parts]),
            "second": np.concatenate([part.second for part in parts]),
            "code": codes.gather(pl.Series(which)),
            "numeric_value": np.concatenate([part.value for part in parts]),
        }
    )


def _measured(
    rng: np.random.Generator,
    config: SyntheticConfig,
    k: int,
    patients: Physiology,
    circumstances: Circumstances,
) -> Iterator[_Readings]:
    """The usual codes in a fixed order; without readings where the hospital has no such code."""
    intensity = draw_intensity(config, k, len(patients.level))
    severity = patients.severity
    for index, (stream, rate) in enumerate(RATES.items()):
        often = rate * np.exp(SICKER_MORE_OFTEN * severity)
        usual = _usual_rounds(rng, often * np.minimum(intensity, 1.0)[:, None], first=stream == "vitals")
        extra_rng = generator(config.seed, k, Stream.EXTRA_ROUNDS, index)
        extra = _extra_rounds(extra_rng, often * np.maximum(intensity - 1.0, 0.0)[:, None])
        for m in MEASUREMENTS:
            if m.stream != stream:
                continue
            offset = rng.normal(0.0, STAY_OFFSET, len(severity)) * circumstances.noise
            view = np.array(m.loadings), offset, circumstances.noise, circumstances.device[m.code]
            part = _readings(rng, m, patients.x, usual, *view)
            if len(extra.stay):
                part = part + _readings(extra_rng, m, patients.x, extra, *view)
            # Drawn all the same where it is not measured: coverage then changes nothing else.
            yield part.where(np.zeros(len(part.stay), bool)) if m.code in circumstances.unmeasured else part


def _usual_rounds(rng: np.random.Generator, chance: Floats, *, first: bool) -> _Rounds:
    """At most one round an hour; `first`: one in the first hour in any case, so that no stay is empty."""
    due = rng.random(chance.shape) < chance
    if first:
        due[:, 0] = True
    stay, hour = np.nonzero(due)
    return _Rounds(stay, (hour * 60 + rng.integers(0, 60, len(hour))) * 60)


def _extra_rounds(rng: np.random.Generator, rate: Floats) -> _Rounds:
    """Rounds beyond one an hour, at any second but never two of a stay in one."""
    if not rate.any():
        return _Rounds(np.empty(0, np.int64), np.empty(0, np.int64))
    count = rng.poisson(rate)
    stay, hour = (np.repeat(where, count[count > 0]) for where in np.nonzero(count))
    # Seconds 1 to 59 of a minute: the usual rounds have the full minutes.
    second = hour * 3600 + rng.integers(0, 60, len(hour)) * 60 + rng.integers(1, 60, len(hour))
    both = np.unique(stay * _SECONDS + second)
    return _Rounds(both // _SECONDS, both % _SECONDS)


def _readings(
    rng: np.random.Generator,
    m: Measurement,
    x: Floats,
    rounds: _Rounds,
    loadings: Floats,
    offset: Floats,
    noise: Floats,
    device: float,
) -> _Readings:
    stay, hour = rounds.stay, rounds.second // 3600
    white = rng.normal(0.0, WHITE_NOISE, len(stay)) * noise[stay]
    taken = rng.random(len(stay)) < TAKEN
    view = x[stay, :, hour] @ loadings + offset[stay] + white + device
    return _written(m, rounds, view).where(taken)


def _beside(
    config: SyntheticConfig, k: int, slope: Floats, circumstances: Circumstances
) -> Iterator[tuple[int, _Readings]]:
    """The marker (0) and the decoys (1, 2, ...), at times that know nothing of the patient."""
    stays = len(slope)
    chance = np.full((stays, HOURS), MARKER_RATE)
    if "deterioration" in config.tasks:
        rng = generator(config.seed, k, Stream.MARKER, 2)
        rounds = _usual_rounds(rng, chance, first=False)
        middle = rng.normal(0.0, MARKER_MIDDLE_SD, stays)
        # Minute m stands for its middle, so that the first and the last one mirror each other.
        progress = (rounds.second + 30) / _SECONDS - 0.5
        white = rng.normal(0.0, MARKER_WHITE, len(rounds.stay)) * circumstances.noise[rounds.stay]
        view = middle[rounds.stay] + slope[rounds.stay] * progress + white
        yield 0, _written(MARKER, rounds, view)
    for number in range(1, config.decoys + 1):
        rng = generator(config.seed, k, Stream.DECOYS, number)
        rounds = _usual_rounds(rng, chance, first=False)
        yield number, _written(decoy(number), rounds, rng.normal(size=len(rounds.stay)))


def _written(m: Measurement, rounds: _Rounds, view: Floats) -> _Readings:
    value = np.clip(m.mean + m.spread * view, m.low, m.high).round(m.decimals)
    return _Readings(m.code, rounds.stay, rounds.second, value)


def _lost(
    config: SyntheticConfig,
    k: int,
    number: int,
    part: _Readings,
    severity: Floats,
    circumstances: Circumstances,
) -> Booleans:
    """Which readings of the patients were lost; what shows nothing of them is lost by group alone."""
    lost = _lost_of_group(config, k, number, part, circumstances)
    if not config.severe_missing:
        return lost
    sickness = 1.0 / (1.0 + np.exp(-2.0 * severity[part.stay, part.second // 3600]))
    rng = generator(config.seed, k, Stream.SEVERE_MISSING, number)
    return np.asarray(lost | (rng.random(len(part.stay)) < config.severe_missing * sickness))


def _lost_of_group(
    config: SyntheticConfig, k: int, number: int, part: _Readings, circumstances: Circumstances
) -> Booleans:
    if not circumstances.lost.any():
        return np.zeros(len(part.stay), bool)
    rng = generator(config.seed, k, Stream.GROUP_MISSING, number)
    return np.asarray(rng.random(len(part.stay)) < circumstances.lost[part.stay])
