"""The weighted mean of updates, added up as they come: memory of a few models, the same bits in any order.

    mean = sum_i w_i x_i / sum_i w_i

A sum of floats depends on its order. Here every w_i x_i is cut into parts that are multiples of fixed powers
of two, the coarse part first, and each kind of part has a sum of its own: sums of multiples of 2^k that stay
below 2^(k + 53) are exact in float64, and what is exact has no order (pre-rounding: Demmel and Nguyen,
"Fast reproducible floating-point summation", ARITH 2013).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from strategies.base import Arrays

SPACING = (2.0**27, 2.0**-13, 2.0**-53)
"""Of the parts. They hold 8192 terms of up to 2^66 each; what a term has below 2^-54 is rounded off."""
ANCHOR = 1.5 * 2.0**52
"""Times a spacing: a float64 there has just that distance to its neighbours."""


class RunningMean:
    """The mean of what was added so far; at least one update."""

    def __init__(self) -> None:
        self._first: Arrays = {}
        self._weights: list[float] = []
        self._sums: dict[str, list[NDArray[np.float64] | None]] = {}

    @property
    def weight(self) -> float:
        """sum_i w_i."""
        return math.fsum(self._weights)

    def add(self, arrays: Arrays, weight: float) -> None:
        """One more update: arrays of the same names, shapes and dtypes as the others', finite."""
        if not self._weights:
            self._first = arrays
            self._sums = {name: [None] * len(SPACING) for name in arrays}
        self._weights.append(weight)
        for name, array in arrays.items():
            rest = array.astype(np.float64) * weight
            for level, spacing in enumerate(SPACING):
                part = np.asarray((rest + ANCHOR * spacing) - ANCHOR * spacing)
                rest -= part
                known = self._sums[name][level]
                if known is not None:
                    np.add(known, part, out=known)
                elif part.any():  # most models need no coarse part: their memory is saved
                    self._sums[name][level] = part

    def mean(self) -> Arrays:
        """In the dtypes of the updates. A single one comes back bit for bit, so that one site alone equals
        central training."""
        if len(self._weights) == 1:
            return self._first
        return {
            name: (self._total(name, array) / self.weight).astype(array.dtype)
            for name, array in self._first.items()
        }

    def _total(self, name: str, like: NDArray[np.generic]) -> NDArray[np.float64]:
        total = np.zeros(like.shape)
        for part in reversed(self._sums[name]):  # the fine ones first: they are the ones that could be lost
            if part is not None:
                total = total + part
        return total
