"""FedAvgM: FedAvg with momentum at the server (Hsu, Qi, Brown 2019, arXiv 1909.06335).

    Delta = sum_i p_i (x_i - w)       mean change of the round, p_i the sites' shares
    v <- beta v + Delta               momentum, 0 at first
    w <- w + eta v

beta = 0 and eta = 1 is FedAvg. Rounds in the same direction add up to eta / (1 - beta) times the change
of one, so beta and eta are to be chosen together: the paper's beta = 0.9 is for hundreds of rounds with
a small eta; a study of ten or twenty has 0.5, which is twice the change at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hymate.frozen import Positive, Probability
from strategies.base import Algorithm, Arrays, Round, Update
from strategies.change import Change, change_of, kept, mean_change, moved, recalled, shares


def with_momentum(velocity: Change, change: Change, beta: float) -> Change:
    """v <- beta v + Delta; an empty `velocity` is zero."""
    return {name: beta * velocity.get(name, np.zeros(())) + delta for name, delta in change.items()}


class FedAvgM(Algorithm):
    """FedAvg whose steps remember the steps before."""

    name = "fedavgm"
    of_the_mean = True

    class Settings(Algorithm.Settings):
        momentum: Probability = 0.5
        """beta: the share of the last step that is taken again."""
        server_learning_rate: Positive = 1.0
        """eta."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._velocity: Change = {}

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        changes = [change_of(update, current) for update in updates]
        mean = mean_change(changes, shares([update.weight for update in updates]))
        self._velocity = with_momentum(self._velocity, mean, self.settings.momentum)
        eta = self.settings.server_learning_rate
        return moved(current, {name: eta * step for name, step in self._velocity.items()})

    def state(self) -> Arrays:
        return kept("momentum", self._velocity)

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._velocity = recalled("momentum", state)
