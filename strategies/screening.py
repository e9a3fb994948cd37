"""Updates are checked before they are folded: one bad reply costs that site its round, not the study."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.generic]]

REMEMBERED = 50
"""Lengths of accepted updates whose median is the measure."""


def fault_of(update: Weights, reference: Weights, weight: float) -> str | None:
    """Why an update cannot be folded into weights like `reference`; None where it can."""
    if not (np.isfinite(weight) and weight > 0):
        return f"weight {weight} is not a positive number"
    strange = sorted(set(update) ^ set(reference))
    if strange:
        return f"{len(strange)} arrays missing or unknown, first: {strange[0]}"
    for name, array in update.items():
        if array.shape != reference[name].shape or array.dtype != reference[name].dtype:
            expected = reference[name]
            return (
                f"{name} is {array.dtype}{list(array.shape)}, expected {expected.dtype}{list(expected.shape)}"
            )
        if not np.isfinite(array).all():
            return f"{name} holds values that are not finite"
    return None


def length(update: Weights, reference: Weights, steps: int) -> float:
    """How far an update moved the weights, per optimiser step: ||update - reference||_2 / steps.

    Per step, because an honest large hospital takes a hundred times the steps of a small one.
    """
    squares = sum(
        float(np.sum((np.asarray(array, np.float64) - np.asarray(reference[name], np.float64)) ** 2))
        for name, array in update.items()
    )
    return float(np.sqrt(squares)) / max(steps, 1)


class LengthCheck:
    """Tells updates that are far longer than the study's others, by a running median.

    The median is over the accepted updates of earlier rounds and this round's other ones, whatever the
    order in which they came; a site with nothing to be compared with passes. It finds accidents (a
    learning rate of 1, a scaled array), not a site that means harm and stays within the factor.
    """

    def __init__(self, factor: float, accepted: Sequence[float] = ()) -> None:
        self._factor = factor
        self.accepted = list(accepted)
        """Lengths of the latest accepted updates, oldest first: all there is to remember."""

    def faults(self, lengths: Mapping[str, float]) -> dict[str, str]:
        """Site -> what is wrong with its update."""
        faults = {}
        for site, own in lengths.items():
            others = [*self.accepted, *(other for name, other in lengths.items() if name != site)]
            usual = statistics.median(others) if others else own
            if usual > 0 and own > self._factor * usual:
                faults[site] = (
                    f"its update is {own / usual:.3g} times as long per step as the study's median, "
                    f"{self._factor:g} is the limit"
                )
        return faults

    def remember(self, lengths: Mapping[str, float]) -> None:
        """These updates were folded."""
        self.accepted += lengths.values()
        del self.accepted[:-REMEMBERED]
