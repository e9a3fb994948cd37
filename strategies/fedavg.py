"""FedAvg: the weighted mean of the sites' weights (McMahan et al. 2017, arXiv 1602.05629)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strategies.base import Algorithm, Arrays, Round, Update


def weighted_mean(updates: Sequence[Update]) -> Arrays:
    """Per array: sum_i w_i x_i / sum_i w_i, accumulated in float64 in the order given.

    A single update comes back bit for bit, so one site alone equals central training.
    """
    total = sum(update.weight for update in updates)
    mean: Arrays = {}
    for name, first in updates[0].arrays.items():
        folded = np.zeros(first.shape, dtype=np.float64)
        for update in updates:
            folded += update.arrays[name].astype(np.float64) * (update.weight / total)
        mean[name] = folded.astype(first.dtype)
    return mean


class FedAvg(Algorithm):
    """Each site counts by its weight; sites train as if they were alone."""

    name = "fedavg"
    of_the_mean = True

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        return weighted_mean(updates)
