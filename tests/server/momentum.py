"""FedAvg with momentum at the server (FedAvgM, Hsu et al. 2019, arXiv 1909.06335): it has a state to lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.base import Arrays, Round, Update
from strategies.fedavg import FedAvg, weighted_mean


class ServerMomentum(FedAvg):
    name = "test-momentum"

    def __init__(self, settings: FedAvg.Settings) -> None:
        super().__init__(settings)
        self._velocity: Arrays = {}

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        mean = weighted_mean(updates)
        following: Arrays = {}
        for name, array in mean.items():
            step = np.asarray(array - current[name], np.float64)
            kept = self._velocity.get(name, np.zeros_like(step))
            self._velocity[name] = 0.5 * np.asarray(kept) + step
            following[name] = (current[name] + self._velocity[name]).astype(array.dtype)
        return following

    def state(self) -> Arrays:
        return self._velocity

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._velocity = dict(state)
