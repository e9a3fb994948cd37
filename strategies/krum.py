"""Krum: the update of the one site that is nearest to the others (Blanchard et al. 2017, arXiv 1703.02757).

    score(i) = sum over the n - f - 2 sites j nearest to i of ||Delta_i - Delta_j||^2
    w <- w + Delta_k, k the site of the lowest score

Defined for n >= 2 f + 3 sites: with one faulty site, five. The model learns from one hospital a round, so
Krum is for studies in which hospitals are alike; `multikrum` loses less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.flower import built
from strategies.robust import Robust

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


class Krum(Robust):
    """The update in the middle of the densest crowd."""

    name = "krum"

    def fewest(self) -> int:
        return 2 * self.settings.faulty + 3

    def strategy(self, sites: int) -> Strategy:
        return built("Krum", {"num_malicious_nodes": self.settings.faulty})
