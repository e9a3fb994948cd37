"""Trimmed mean: by coordinate, the mean without the f lowest and the f highest values.

Yin, Chen, Ramchandran, Bartlett 2018, arXiv 1803.01498, definition 2:

    w_j <- w_j + mean of the n - 2 f middle values of Delta_1j ... Delta_nj

Defined for n >= 2 f + 1 sites. f is a number of sites, not a share: a share of 0.2 cuts nothing of four.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.flower import built
from strategies.robust import Robust

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def cut_share(faulty: int, sites: int) -> float:
    """The share of which Flower's int(share * sites) is `faulty`, below one half where it may be."""
    return (faulty + 0.25) / sites


class TrimmedMean(Robust):
    """Extreme values of every coordinate are cut away."""

    name = "trimmed_mean"

    def fewest(self) -> int:
        return 2 * self.settings.faulty + 1

    def strategy(self, sites: int) -> Strategy:
        return built("FedTrimmedAvg", {"beta": cut_share(self.settings.faulty, sites)})
