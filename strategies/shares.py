"""What part of the whole study each site is, also in rounds that only some of them are in.

Algorithms that sum something over *all* sites (SCAFFOLD's control variates, FedDyn's gradients) need the
sites' shares p_i = w_i / sum_j w_j of the whole, where a round knows the weights of its own sites alone:
with other shares than the weighted mean of their updates has, they would lead to another optimum than
FedAvg's objective has. Weights are remembered as they were when a site was first in a round; until all
sites were, those unknown are taken to be as heavy as the others on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.base import Arrays, Update
from strategies.prefixed import numbers_under

PREFIX = "site weight/"
TOTAL = "all sites' weight"


class Shares:
    """Weights of the sites met so far."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._total = 0.0

    def meet(self, updates: Sequence[Update], sites: int) -> float:
        """A round with these updates, in a study of so many sites.

        Returns what sums over all sites made so far must be multiplied by: shares may have changed.
        """
        before = self._total
        for update in updates:
            self._weights.setdefault(update.site, update.weight)
        known = sum(self._weights.values())
        unseen = max(sites - len(self._weights), 0)
        self._total = known + known / len(self._weights) * unseen
        return before / self._total

    def of(self, site: str) -> float:
        """p_i of a site that was met; 1 where it is the only one."""
        return self._weights[site] / self._total

    def state(self) -> Arrays:
        """As `Algorithm.state`."""
        kept = {PREFIX + site: np.array(weight) for site, weight in self._weights.items()}
        return {**kept, TOTAL: np.array(self._total)} if kept else {}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from what `state` gave, among other arrays."""
        self._weights = numbers_under(PREFIX, state)
        self._total = float(np.asarray(state.get(TOTAL, 0.0)).item())
