"""Updates as what changed since the weights sent: the server algorithms' pseudo-gradients, in float64.

Delta_i = x_i - w           of site i, from the weights w it received to its own x_i
Delta = sum_i s_i Delta_i   over the round's sites, by shares s_i
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.base import Arrays, Update
from strategies.prefixed import prefixed, under

Vector = NDArray[np.float64]
Change = dict[str, Vector]
"""One float64 array for every array of the weights."""


def change_of(update: Update, current: Arrays) -> Change:
    """Delta_i: how far one site moved each array."""
    return {
        name: np.subtract(update.arrays[name], array, dtype=np.float64) for name, array in current.items()
    }


def shares(weights: Sequence[float]) -> Vector:
    """Numbers that sum to one, in the proportions of `weights`."""
    given = np.asarray(weights, np.float64)
    return np.asarray(given / given.sum(), np.float64)


def mean_change(changes: Sequence[Change], parts: Sequence[float] | Vector) -> Change:
    """sum_i parts_i Delta_i, in the order given."""
    mean = {name: np.zeros(array.shape) for name, array in changes[0].items()}
    for change, part in zip(changes, parts, strict=True):
        for name, array in change.items():
            mean[name] += float(part) * array
    return mean


def moved(current: Arrays, change: Change) -> Arrays:
    """The weights after the change, in the dtypes of `current`."""
    return {
        name: (array.astype(np.float64) + change[name]).astype(array.dtype) for name, array in current.items()
    }


def squared_length(change: Change) -> float:
    """||Delta||^2 over all arrays together."""
    return sum(float(np.sum(array * array)) for array in change.values())


def kept(prefix: str, change: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """Arrays as an algorithm's state names them: `<prefix>/<array>`."""
    return prefixed(f"{prefix}/", {name: np.asarray(array) for name, array in change.items()})


def recalled(prefix: str, state: Mapping[str, NDArray[np.generic]]) -> Change:
    """The opposite of `kept`."""
    return {name: np.asarray(array, np.float64) for name, array in under(f"{prefix}/", state).items()}
