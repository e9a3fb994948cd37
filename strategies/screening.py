"""Updates are checked before they are folded: one bad reply costs that site its round, not the study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from strategies.arrays import Weights

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
    """How far an update moved the weights, for the steps it took: ||update - reference||_2 / sqrt(steps).

    An honest large hospital takes a hundred times the steps of a small one, and AdamW's steps add up like
    those of a random walk: over 2 to 176 steps at hospitals of 21 to 560 training stays this figure stays
    within a factor of three, where the length itself spread by up to eleven, and that per step by five.
    """
    return whole_length(update, reference) / math.sqrt(max(steps, 1))


def whole_length(arrays: Weights, reference: Weights | None = None) -> float:
    """||arrays - reference||_2 over all of them together; without a reference, their own length."""
    squares = 0.0
    with np.errstate(over="ignore"):  # float64 arrays near their end: infinitely long is long enough
        for name, array in arrays.items():
            moved = np.asarray(array, np.float64)
            if reference is not None:
                moved = moved - np.asarray(reference[name], np.float64)
            squares += float(np.sum(moved * moved))
    return float(np.sqrt(squares))


@dataclass(frozen=True)
class Lengths:
    """What is compared of one site's reply."""

    update: float
    """Of its update, for its steps (`length`)."""
    beside: float = 0.0
    """Of what the algorithm's half sends beside it; the unit is the algorithm's."""


class LengthCheck:
    """Tells updates that are far longer than the study's others, by a running median.

    An update that is `usual` by the accepted updates of earlier rounds passes as soon as it comes. For any
    other the median is over those and this round's other ones, whatever the order in which they came; a site
    with nothing to be compared with passes. Of two sites in a first
    round, the longer one is the fault: a short update does little, whoever is right.

    It finds accidents (a learning rate of 1, a scaled array) and crude attacks, not a site that means harm
    and stays within the factor: a sign flip and flipped labels have the usual length, and the number of
    steps is what the site says it is.
    """

    def __init__(self, factor: float, accepted: Mapping[str, Sequence[float]] | None = None) -> None:
        """Args: accepted: as `state` gave it."""
        self._factor = factor
        accepted = accepted or {}
        self._accepted = {measure.name: list(accepted.get(measure.name, ())) for measure in fields(Lengths)}

    @property
    def state(self) -> dict[str, list[float]]:
        """Lengths of the latest accepted updates by what was measured, oldest first: all there is to
        remember."""
        return {measure: list(lengths) for measure, lengths in self._accepted.items()}

    def usual(self, lengths: Lengths) -> bool:
        """Whether earlier rounds are enough to say that this is not too long."""
        return all(
            bool(accepted) and getattr(lengths, measure) <= self._factor * statistics.median(accepted)
            for measure, accepted in self._accepted.items()
        )

    def faults(self, lengths: Mapping[str, Lengths]) -> dict[str, str]:
        """Site -> what is wrong with its update."""
        said = {
            "beside": "what it sends beside its weights is {} times as long",
            "update": "for its steps its update is {} times as long",
        }
        faults = {}
        for measure, words in said.items():
            of_sites = {site: getattr(found, measure) for site, found in lengths.items()}
            for site, times in self._too_long(measure, of_sites).items():
                if self.usual(lengths[site]):
                    continue
                long = words.format(f"{times:.3g}")
                faults[site] = f"{long} as the study's median, {self._factor:g} is the limit"
        return faults

    def _too_long(self, measure: str, lengths: Mapping[str, float]) -> dict[str, float]:
        """Site -> how many times as long as usual."""
        found = {}
        for site, own in lengths.items():
            others = [*self._accepted[measure], *(other for name, other in lengths.items() if name != site)]
            usual = statistics.median(others) if others else own
            if usual > 0 and own > self._factor * usual:
                found[site] = own / usual
        return found

    def remember(self, lengths: Iterable[Lengths]) -> None:
        """These updates were folded."""
        folded = list(lengths)
        for measure, accepted in self._accepted.items():
            accepted.extend(getattr(found, measure) for found in folded)
            del accepted[:-REMEMBERED]
