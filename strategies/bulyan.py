"""Bulyan: a trimmed mean of the sites that Krum chooses.

El Mhamdi, Guerraoui, Rouault 2018, arXiv 1802.07927:

    S: n - 2 f times, the site Krum would take, out of those not yet taken
    w_j <- w_j + mean of the n - 4 f values of {Delta_ij, i in S} nearest to their median

Defined for n >= 4 f + 3 sites: with one faulty site, seven. Flower ranks the sites once and takes the first
n - 2 f; here the choice is the paper's, Krum anew after each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from strategies.flower import built
from strategies.robust import Robust

if TYPE_CHECKING:
    from flwr.app import RecordDict
    from flwr.serverapp.strategy import Strategy


def one_by_one(contents: list[RecordDict], faulty: int, wanted: int) -> list[RecordDict]:
    """So many replies, each Krum's choice out of those that the choices before left; the first of equals.

    Two sites that are each other's nearest are equals where only one nearest counts, so distances are
    summed pair by pair: the way Flower expands them, rounding would choose.
    """
    points = [
        np.concatenate([array.numpy().ravel() for array in record.values()])
        for content in contents
        for record in content.array_records.values()
    ]
    distances = np.array([[np.sum((one - other) ** 2) for other in points] for one in points])
    left, chosen = list(range(len(points))), []
    for _ in range(wanted):
        close = max(1, len(left) - faulty - 2)
        scores = [
            np.sum(np.sort(distances[site, [other for other in left if other != site]])[:close])
            for site in left
        ]
        chosen.append(contents[left.pop(int(np.argmin(scores)))])
    return chosen


class Bulyan(Robust):
    """Krum against far updates, then a trimmed mean against ones that are far in a few coordinates."""

    name = "bulyan"

    def fewest(self) -> int:
        return 4 * self.settings.faulty + 3

    def strategy(self, sites: int) -> Strategy:
        return built("Bulyan", {"num_malicious_nodes": self.settings.faulty, "selection_rule": one_by_one})
