"""FedAvg: the weighted mean of the sites' weights (McMahan et al. 2017, arXiv 1602.05629)."""

from __future__ import annotations

from collections.abc import Sequence

from strategies.base import Algorithm, Arrays, Round, Update
from strategies.running_mean import RunningMean


def weighted_mean(updates: Sequence[Update]) -> Arrays:
    """Per array: sum_i w_i x_i / sum_i w_i, to the same bits in any order."""
    running = RunningMean()
    for update in updates:
        running.add(update.arrays, update.weight)
    return running.mean()


class FedAvg(Algorithm):
    """Each site counts by its weight; sites train as if they were alone."""

    name = "fedavg"
    of_the_mean = True

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        return weighted_mean(updates)
