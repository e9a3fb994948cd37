"""A grid of rounded values: where the edges of bins may lie that leave a hospital.

Cells hold the numbers that round to the same `DIGITS` significant digits; their edges lie halfway
between such numbers, so a value written with few digits is in the middle of its cell.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DIGITS = 3
ZERO = 1e-9  # values nearer to 0 than this are one cell
POWERS = np.array([float(f"1e{power}") for power in range(-20, 60)])


def largest_step_of(value: Floats) -> float:
    """The grid's largest step for ascending values.

    Infinite, or for data far from 0 the power of ten in a tenth of the middle 80 %'s spread.
    """
    low, middle, high = (float(value[int(rank * (len(value) - 1))]) for rank in (0.1, 0.5, 0.9))
    tenth = (high - low) / 10.0
    decade = int(np.searchsorted(POWERS, max(abs(middle), ZERO), side="right")) - 1
    if tenth <= 0.0 or tenth >= POWERS[decade + 1 - DIGITS]:
        return math.inf
    return 10.0 ** math.floor(math.log10(tenth))


def grid_cells(value: Floats, largest_step: float = math.inf) -> tuple[Floats, Floats]:
    """Lower and upper edge of the cell of numbers that round to the same three significant digits.

    >>> [edge.tolist() for edge in grid_cells(np.array([7.352, 180.2, 1003.0, -0.5, 0.0]))]
    [[7.345, 179.5, 999.5, -0.5005, -1e-09], [7.355, 180.5, 1005.0, -0.4995, 1e-09]]
    """
    decade, number = _rounded(value, largest_step)
    step = _steps(decade, largest_step)
    # Below a power of ten steps are narrower.
    first = number * step <= POWERS[decade] * (1.0 + 1e-12)
    below = np.where(first, _steps(decade - 1, largest_step), step)
    inner, outer = number * step - below / 2.0, number * step + step / 2.0
    zero = np.abs(value) < ZERO
    lower = np.where(zero, -ZERO, np.where(value < 0.0, -outer, inner))
    upper = np.where(zero, ZERO, np.where(value < 0.0, -inner, outer))
    return _tidy(lower), _tidy(upper)


def cell_begins(value: Floats, largest_step: float) -> Ints:
    """Positions in `value` (ascending) at which another cell of the grid begins."""
    decade, number = _rounded(value, largest_step)
    sign = np.sign(np.where(np.abs(value) < ZERO, 0.0, value))
    changes = (np.diff(decade) != 0) | (np.diff(number) != 0) | (np.diff(sign) != 0)
    return np.concatenate(([0], np.flatnonzero(changes) + 1))[: len(value)]


def _rounded(value: Floats, largest_step: float) -> tuple[Ints, Floats]:
    """Each |value| as `number` steps of the decade `POWERS[decade]`."""
    size = np.maximum(np.abs(value), ZERO)
    decade = np.searchsorted(POWERS, size, side="right") - 1
    number = np.floor(size / _steps(decade, largest_step) + 0.5)
    up = number * _steps(decade, largest_step) >= POWERS[decade + 1] * (1.0 - 1e-12)  # 999.7 is 1000
    decade = decade + up
    return decade, np.where(up, np.round(POWERS[decade] / _steps(decade, largest_step)), number)


def _steps(decade: Ints, largest_step: float) -> Floats:
    step: Floats = np.minimum(POWERS[decade + 1 - DIGITS], largest_step)
    return step


def _tidy(value: Floats) -> Floats:
    """Without the last bits that arithmetic left: the same edge from either side is the same number."""
    digits = 12 - np.floor(np.log10(np.maximum(np.abs(value), 1e-300))).astype(np.int64)
    power = 10.0 ** np.clip(digits, -300, 300)
    tidy: Floats = np.round(value * power) / power
    return tidy


def roundest(low: float, high: float) -> float:
    """The number of fewest digits in [low, high].

    >>> roundest(160.5, 180.5), roundest(7.21, 7.29), roundest(-3.0, 5.0), roundest(-41.0, -37.0)
    (180.0, 7.25, 0.0, -40.0)
    """
    if low <= 0.0 <= high:
        return 0.0
    if high < 0.0:
        return -roundest(-high, -low)
    power = math.floor(math.log10(high)) + 1
    while True:
        for part in (1.0, 0.5):
            step = 10.0**power * part
            number = math.floor(high / step * (1.0 + 1e-12)) * step
            if number >= low:
                return float(f"{number:.12g}")
        power -= 1
