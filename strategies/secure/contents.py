"""What the numbers of a sum mean: a site's round or report as a vector, and the sum as what came of all.

    part `update`    ring of 2^bits   w / w_max * clip(x - x_received), shared arrays in the order of names
    part `figures`   ring of 2^64     w, stays and their loss, stays and their forecast error, a score report

so that the mean change of the weights is  w_max * sum(update) / sum(w).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hymate.score_reports import ScoreReport
from hymate.secure_protocol import Terms
from strategies.arrays import Weights
from strategies.base import Arrays
from strategies.secure.ring import OutOfBounds, Residues, Vector, decoded, encoded
from strategies.secure.score_sums import numbers_of, report_of, size_of

UPDATE, FIGURES = "update", "figures"
FIGURES_BITS = 64
FIGURE_LIMIT = 2.0**30
"""Of one figure at one site; figures are exact to 2^-32 times the number of sites."""
TRAINING = 5
"""Figures of a round, before its score report's."""


@dataclass(frozen=True)
class Rings:
    """What all sites of a sum write their numbers in."""

    sites: int
    bits: int
    clipping_range: float
    heaviest: float

    @classmethod
    def of(cls, terms: Terms) -> Rings:
        return cls(len(terms.keys), terms.bits, terms.clipping_range, terms.heaviest)


@dataclass(frozen=True)
class SiteRound:
    """What one site adds to the sum of a round."""

    trained: Weights
    """Its shared weights after local training."""
    weight: float
    stays: int = 0
    loss: float = 0.0
    """Mean of the stays."""
    forecast_error: float | None = None
    """None: too few tuning stays."""
    received: ScoreReport | None = None
    """The weights received on tuning, where that is summed, too."""


@dataclass(frozen=True)
class SummedRound:
    """What came of all sites; means are over stays, None where no site told any."""

    weight: float
    shared: Arrays
    """Weighted mean of the sites' weights, each clipped to where it may lie."""
    loss: float | None
    forecast_error: float | None
    received: ScoreReport | None


def round_vector(found: SiteRound, received: Weights, rings: Rings, bins: int) -> Vector:
    """Args: received: shared weights before training; bins: of the score report, 0 for none.

    Raises:
        OutOfBounds: something is not finite, or the site's weight is beyond the largest there is.
    """
    if not 0 < found.weight <= rings.heaviest:
        raise OutOfBounds(f"its weight {found.weight:g} is beyond {rings.heaviest:g}, the round's largest")
    moved = np.concatenate(
        [
            np.ravel(np.subtract(found.trained[name], received[name], dtype=np.float64))
            for name in sorted(received)
        ]
    )
    if not np.isfinite(moved).all():
        raise OutOfBounds("its weights are not finite after training")
    limit = rings.clipping_range
    scaled = np.clip(moved, -limit, limit) * (found.weight / rings.heaviest)
    error, told = found.forecast_error or 0.0, float(found.forecast_error is not None)
    told *= found.stays
    figures = np.array([found.weight, found.stays, found.stays * found.loss, told, told * error])
    if bins:
        report = found.received or ScoreReport(n=None, positives=None)
        figures = np.concatenate([figures, numbers_of(report, bins)])
    return {
        UPDATE: encoded(scaled, limit, rings.bits, rings.sites),
        FIGURES: _figures(figures, rings.sites),
    }


def round_of(total: Mapping[str, Residues], received: Weights, rings: Rings, bins: int) -> SummedRound:
    """The opposite, of a sum.

    Raises:
        OutOfBounds: the sum's weight is not a positive number.
    """
    figures = decoded(total[FIGURES], FIGURE_LIMIT, FIGURES_BITS, rings.sites)
    weight, stays, losses, told, errors = figures[:TRAINING]
    if not 0 < weight <= rings.heaviest * rings.sites:
        raise OutOfBounds(f"their weights sum up to {weight:g}")
    moved = decoded(total[UPDATE], rings.clipping_range, rings.bits, rings.sites)
    moved *= rings.heaviest / weight
    shared: Arrays = {}
    begin = 0
    for name in sorted(received):
        before = received[name]
        end = begin + before.size
        change = moved[begin:end].reshape(before.shape)
        shared[name] = np.add(before, change, dtype=np.float64).astype(before.dtype)
        begin = end
    return SummedRound(
        weight=float(weight),
        shared=shared,
        loss=float(losses / stays) if stays else None,
        forecast_error=float(errors / told) if told else None,
        received=report_of(figures[TRAINING:], bins) if bins else None,
    )


def report_vector(report: ScoreReport, sites: int, bins: int) -> Vector:
    """A site's report alone. Raises `OutOfBounds` where a figure of it is not finite."""
    return {FIGURES: _figures(numbers_of(report, bins), sites)}


def summed_report(total: Mapping[str, Residues], sites: int, bins: int) -> ScoreReport:
    """The opposite, of a sum."""
    return report_of(decoded(total[FIGURES], FIGURE_LIMIT, FIGURES_BITS, sites), bins)


def sizes(received: Weights | None, bits: int, bins: int) -> dict[str, tuple[int, str]]:
    """Part -> how many numbers of which type a site must send; of a report alone without `received`."""
    found = {}
    figures = size_of(bins) if bins else 0
    if received is not None:
        found[UPDATE] = (sum(array.size for array in received.values()), f"uint{bits}")
        figures += TRAINING
    return {**found, FIGURES: (figures, f"uint{FIGURES_BITS}")}


def _figures(values: NDArray[np.float64], sites: int) -> Residues:
    if not (np.abs(values) <= FIGURE_LIMIT).all():
        raise OutOfBounds("a figure of it is not finite, or too large")
    return encoded(values, FIGURE_LIMIT, FIGURES_BITS, sites)
