"""Median: by coordinate, the middle value.

Yin, Chen, Ramchandran, Bartlett 2018, arXiv 1803.01498, definition 1:

    w_j <- w_j + median of Delta_1j ... Delta_nj

Needs n >= 2 f + 1 sites, so that the middle value is an honest one or lies between two. `faulty` changes
nothing but that number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.flower import built
from strategies.robust import Robust

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


class Median(Robust):
    """The middle value of every coordinate."""

    name = "median"

    def fewest(self) -> int:
        return 2 * self.settings.faulty + 1

    def strategy(self, sites: int) -> Strategy:
        return built("FedMedian", {})
