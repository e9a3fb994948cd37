"""Unlike hospitals with a quadratic loss each, and where algorithms must end on them, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.strategies.halves import Hospital

RATE = 0.1


def unlike(*, stays: Sequence[int] = (30, 10, 20), steps: int = 5) -> list[Hospital]:
    """Far optima, unlike curvatures: the fixed point of FedAvg is not the study's optimum."""
    return [
        Hospital("a", [1.0, 2.0], [2.0, 0.5], stays=stays[0], steps=steps),
        Hospital("b", [-1.0, 4.0], [0.5, 1.0], stays=stays[1], steps=steps),
        Hospital("c", [3.0, -2.0], [1.0, 3.0], stays=stays[2], steps=steps),
    ]


def weighted(hospitals: Sequence[Hospital], by: Sequence[Any]) -> NDArray[np.float64]:
    """Mean of the hospitals' optima, by stays times `by`."""
    parts = np.stack([h.stays * np.asarray(x, float) for h, x in zip(hospitals, by, strict=True)])
    optima = np.stack([np.asarray(h.optimum, float) for h in hospitals])
    mean: NDArray[np.float64] = (parts * optima).sum(0) / parts.sum(0)
    return mean


def optimum(hospitals: Sequence[Hospital]) -> NDArray[np.float64]:
    """Where the gradients, weighted by stays, sum to zero."""
    return weighted(hospitals, [h.curvature for h in hospitals])


def drifted(hospitals: Sequence[Hospital], mu: float = 0.0) -> NDArray[np.float64]:
    """The fixed point of FedAvg (mu 0) and FedProx: strategies/fedprox.py has the formula."""

    def gain(h: Hospital) -> NDArray[np.float64]:
        curvature = np.asarray(h.curvature, float)
        left = ((1 - RATE * curvature) / (1 + RATE * mu)) ** h.steps
        return np.asarray((1 - left) * curvature / (curvature + mu))

    return weighted(hospitals, [gain(h) for h in hospitals])
