"""Fewer bits for every number of an array: half precision, and 8 bits rounded by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 127
"""Steps of int8 to either side of zero; -128 is not used."""
LARGEST_FLOAT16 = 65504.0


def to_float16(values: NDArray[np.floating]) -> NDArray[np.float16] | None:
    """Values to the nearest number of 16 bits; None where one is beyond 65504, the largest of them.

    From 6.1e-5 on the relative error is at most 2^-11; below, the absolute one at most 2^-25: smaller
    values than that become zero.
    """
    with np.errstate(over="ignore"):
        halved = values.astype(np.float16)
    return halved if np.isfinite(halved).all() else None


def scale_of(values: NDArray[np.floating]) -> np.float32:
    """The step between neighbouring levels: 0 for an array of zeros, infinite where 32 bits do not do."""
    peak = float(np.max(np.abs(values), initial=0.0))
    with np.errstate(over="ignore"):
        scale = np.float32(peak / LEVELS)
        if 0.0 < float(scale) * LEVELS < peak:  # rounded down: the peak would lie beyond the last level
            scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def to_int8(values: NDArray[np.floating], scale: np.float32, rng: np.random.Generator) -> NDArray[np.int8]:
    """Values in steps of `scale`, rounded up with the probability of what is above the lower level.

    The expected value of level * scale is the value itself (QSGD, Alistarh et al. 2017, arXiv
    1610.02132). One random number is drawn for each entry, whatever the values are.
    """
    chance = rng.random(values.shape)
    if scale == 0.0:
        return np.zeros(values.shape, dtype=np.int8)
    levels = np.floor(values.astype(np.float64) / np.float64(scale) + chance)
    return np.clip(levels, -LEVELS, LEVELS).astype(np.int8)


def from_int8(
    levels: NDArray[np.int8], scale: np.float32, kind: np.dtype[np.floating]
) -> NDArray[np.floating]:
    """What the levels stand for."""
    with np.errstate(over="ignore"):
        return (levels.astype(np.float64) * np.float64(scale)).astype(kind)
