"""AFL: agnostic federated learning, minimax over the sites (Mohri, Sivek, Suresh 2019, arXiv 1902.00146).

    min_w max_{lambda in L} sum_i lambda_i F_i(w)
    L = {lambda: sum_i lambda_i = 1, lambda_i >= floor p_i}

The mixture lambda belongs to the server; it begins as the study's shares p, and every round makes one step
down in w and one up in lambda, both from the same point (STOCHASTIC-AFL, section 4; an epoch of local
training in place of one gradient):

    w <- w + sum_i lambda_i (x_i - w) / sum_i lambda_i           over the sites of the round
    lambda <- nearest point of L to lambda + gamma F(w)

The paper's L is any convex set of mixtures; `floor` makes it one between the whole simplex (0: at last the
worst site alone may count) and the study's shares (1: FedAvg). gamma = 0 is FedAvg, too.

Partial participation: sites that are not in a round keep their lambda, and those that are share out what
they had together. A site that is new gets its share p_i, and all others make room in proportion.

gamma: in a round a site gains gamma times what its loss is above the mean of the sites. Losses of hospitals
differ by some 0.1 to 0.5, so 0.1 moves a few hundredths a round, and a study of ten or twenty rounds ends
with a mixture that is another one, yet not a single site.

Losses are what the sites say they are: a site that exaggerates takes the study over, up to the others'
floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from strategies.base import Algorithm, Arrays, Round, SiteHalf, Update
from strategies.change import Vector, change_of, mean_change, moved
from strategies.prefixed import numbers_under
from strategies.received_loss import LOSS, ReceivedLoss

Shares = dict[str, float]
"""By name of site."""
MIXTURE, WEIGHT = "mixture/", "weight/"
"""Before the sites' names in the state."""


def on_simplex(point: Vector, mass: float = 1.0) -> Vector:
    """The nearest vector that is nowhere negative and sums to `mass` (Held, Wolfe, Crowder 1974).

    >>> on_simplex(np.array([0.5, 0.9])).round(3).tolist()
    [0.3, 0.7]
    >>> on_simplex(np.array([3.0, 0.0, 1.0])).tolist()
    [1.0, 0.0, 0.0]
    """
    falling = np.sort(point)[::-1]
    above = (np.cumsum(falling) - mass) / np.arange(1, len(point) + 1)
    level = above[np.flatnonzero(falling >= above)[-1]]
    return np.asarray(np.maximum(point - level, 0.0), np.float64)


def with_newcomers(mixture: Shares, known: Shares, weights: Shares) -> tuple[Shares, Shares]:
    """The mixture and the weights with the sites of a round among them.

    A new one gets its share of the weights of all known sites; the others keep their proportions.
    """
    new = {site: weight for site, weight in weights.items() if site not in known}
    total = sum(known.values()) + sum(new.values())
    room = sum(known.values()) / total
    wider = {site: part * room for site, part in mixture.items()}
    mixed = {**wider, **{site: weight / total for site, weight in new.items()}}
    return _in_order(mixed), _in_order({**known, **new})


def ascended(mixture: Shares, known: Shares, losses: Shares, gamma: float, floor: float) -> Shares:
    """The mixture after one step up the losses of this round's sites; that of other sites stays."""
    sites = sorted(losses)
    total = sum(known.values())
    least = np.array([floor * known[site] / total for site in sites])
    here = np.array([mixture[site] for site in sites])
    # The mean takes no part in the projection; without it, great losses would cost digits.
    loss = np.array([losses[site] for site in sites])
    up = here + gamma * (loss - loss.mean())
    after = least + on_simplex(up - least, max(float(np.sum(here - least)), 0.0))
    return {**mixture, **dict(zip(sites, after.tolist(), strict=True))}


class Afl(Algorithm):
    """The server looks for the mixture of sites that does worst, and trains for it."""

    name = "afl"

    class Settings(Algorithm.Settings):
        mixture_rate: Annotated[float, Field(ge=0.0)] = 0.1
        """gamma: how fast the mixture moves towards sites with a higher loss; 0 is FedAvg."""
        floor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
        """What every site keeps of its share under the study's weighting; 1 is FedAvg."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._mixture: Shares = {}
        self._weights: Shares = {}

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        given = {update.site: update.weight for update in updates}
        self._mixture, self._weights = with_newcomers(self._mixture, self._weights, given)
        parts = np.array([self._mixture[update.site] for update in updates])
        here = float(parts.sum())
        changes = [change_of(update, current) for update in updates]
        following = moved(current, mean_change(changes, parts / here)) if here > 0 else current
        losses = {update.site: update.facts[LOSS] for update in updates}
        self._mixture = ascended(
            self._mixture, self._weights, losses, self.settings.mixture_rate, self.settings.floor
        )
        return following

    def facts_expected(self) -> frozenset[str]:
        return frozenset({LOSS})

    def facts_needed(self) -> frozenset[str]:
        return frozenset({LOSS})

    def site_half(self) -> SiteHalf:
        return ReceivedLoss()

    def state(self) -> Arrays:
        mixture = {MIXTURE + site: np.array([part]) for site, part in self._mixture.items()}
        return {**mixture, **{WEIGHT + site: np.array([part]) for site, part in self._weights.items()}}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._mixture, self._weights = (_in_order(numbers_under(of, state)) for of in (MIXTURE, WEIGHT))


def _in_order(shares: Shares) -> Shares:
    """By the sites' names: sums of floats depend on their order."""
    return dict(sorted(shares.items()))
