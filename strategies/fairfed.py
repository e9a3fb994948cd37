"""FairFed: sites where the model is as fair as in all of them count more.

Ezzeldin et al. 2023, arXiv 2110.00857.

    F      how much better the model does for people in the group than for others: the share of them that
           it gets right, less that of the others. metric equal_opportunity: among stays with the label
           (the difference of true positive rates); accuracy: among all
    F_k    at site k;  F  over all sites, from their counts
    A_k, A share of all stays that the model gets right at site k, and over all sites
    D_k    |F_k - F|; |A_k - A| where F_k is not defined, as in the paper
    p_k    share of site k (`strategies.shares`)
    m_k    how far its weight was moved so far; 0 before its first round
    beta   how fast weights move; 0: FedAvg, bit for bit

    m_k <- m_k - beta (D_k - mean of D over the round's sites), but no further down than -p_k
    w_t+1 = weighted mean of the sites' weights, by p_k + m_k

All of it is of the weights *received*, on the training stays, with a score of at least `threshold` taken
for a positive: local training is plain, whatever its optimiser. The bound at 0 is ours: beyond it the paper's
weights are negative. Moves add up, and a rate among 30 stays is known to about 0.09: with a beta near 1 a few
rounds of chance decide who counts. A site that can send neither figure keeps its weight. In pretraining
there is no label to be fair about, and FairFed is FedAvg.

The group is a static code without a number (`GENDER//F`); everybody without the code is the rest.

What leaves a site beside its weights, as numbers of stays: right and wrong in the group and outside of it,
all four or none; right and wrong among all. No number from 1 to `policy.min_cell` - 1 is sent, nor numbers
from whose difference one follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.train.scoring import labelled
from strategies.base import Algorithm, Arrays, Beside, LocalRound, Round, SiteHalf, Update
from strategies.fedavg import weighted_mean
from strategies.prefixed import numbers_under
from strategies.shares import Shares

GROUPS = ("member_right", "member_wrong", "other_right", "other_wrong")
ALL = ("right", "wrong")
MOVED = "moved/"
Metric = Literal["equal_opportunity", "accuracy"]


class FairFed(Algorithm):
    """Weights of the sites follow how their fairness gap differs from that of all."""

    name = "fairfed"

    class Settings(Algorithm.Settings):
        group: Annotated[str, Field(min_length=1)]
        """Static code of the people in question, as the agreed vocabulary has it: GENDER//F."""
        metric: Metric = "equal_opportunity"
        """Among whom the model is to do as well: stays with the label (`equal_opportunity`), or all."""
        beta: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.1
        """How fast weights follow the gaps: moved by so much of a gap in each round."""
        threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
        """Scores from here on are taken for a positive."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._shares = Shares()
        self._moved: dict[str, float] = {}

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        self._shares.meet(updates, round.sites)
        differences = gaps({update.site: update.facts for update in updates})
        usual = sum(differences.values()) / len(differences) if differences else 0.0
        for site, difference in differences.items():
            moved = self._moved.get(site, 0.0) - self.settings.beta * (difference - usual)
            self._moved[site] = max(moved, -self._shares.of(site))
        if not any(self._moved.values()):
            return weighted_mean(updates)
        weights = [self._shares.of(update.site) + self._moved.get(update.site, 0.0) for update in updates]
        if not any(weight > 0 for weight in weights):
            return weighted_mean(updates)
        return weighted_mean([replace(u, weight=w) for u, w in zip(updates, weights, strict=True)])

    def facts_expected(self) -> frozenset[str]:
        return frozenset({*GROUPS, *ALL})

    def state(self) -> Arrays:
        return {
            **self._shares.state(),
            **{MOVED + site: np.array(moved) for site, moved in self._moved.items()},
        }

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._shares.restore(state)
        self._moved = numbers_under(MOVED, state)

    def site_half(self) -> SiteHalf:
        return Measured(self.settings)


def gaps(facts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """D_k of every site that has one, from what the sites sent."""
    by_group = {site: counts for site, said in facts.items() if (counts := _counts(said, GROUPS))}
    overall = {site: counts for site, said in facts.items() if (counts := _counts(said, ALL))}
    fairness = _fairness(_sum(by_group.values(), GROUPS))
    accuracy = _rate(*_sum(overall.values(), ALL))
    found = {}
    for site in facts:
        own = _fairness(by_group[site]) if site in by_group else None
        right = _rate(*overall[site]) if site in overall else None
        if own is not None and fairness is not None:
            found[site] = abs(own - fairness)
        elif right is not None and accuracy is not None:
            found[site] = abs(right - accuracy)
    return found


def _counts(facts: Mapping[str, float], names: Sequence[str]) -> list[float] | None:
    """These numbers, where all of them were sent and none is below zero."""
    found = [facts[name] for name in names if facts.get(name, -1.0) >= 0]
    return found if len(found) == len(names) else None


def _sum(counts: Iterable[list[float]], names: Sequence[str]) -> list[float]:
    summed = [0.0] * len(names)
    for one in counts:
        summed = [a + b for a, b in zip(summed, one, strict=True)]
    return summed


def _rate(right: float, wrong: float) -> float | None:
    return right / (right + wrong) if right + wrong > 0 else None


def _fairness(counts: Sequence[float]) -> float | None:
    """F out of GROUPS; None where one of the groups is empty."""
    member, other = _rate(*counts[:2]), _rate(*counts[2:])
    return None if member is None or other is None else member - other


class Measured(SiteHalf):
    """Measures the weights received, and sends what may leave."""

    def __init__(self, settings: FairFed.Settings) -> None:
        self._settings = settings
        self._facts: dict[str, float] = {}

    def begin(self, local: LocalRound) -> None:
        if local.score is None:
            return
        members, rows = members_of(local.store, self._settings.group), labelled(local.store, "train")
        label = local.store.label[rows] > 0.5
        said = local.score(rows) >= self._settings.threshold
        self._facts = sendable(label, said == label, members[rows], self._settings.metric, local.min_cell)

    def finish(self, local: LocalRound) -> Beside:
        return Beside(facts=self._facts)


def members_of(store: TripletStore, group: str) -> NDArray[np.bool_]:
    """Which stays, (N,), are of people with the static code `group`.

    Raises:
        InputFault: the agreed vocabulary has no such static code, or it is one with a number.
    """
    names = store.header.static_names
    codes = [name for name in names if f"{name}?" not in names and f"{name.removesuffix('?')}?" not in names]
    if group not in codes:
        numeric = f"{group}?" in names
        raise InputFault(
            "strategy.group",
            f"'{group}' is a number, and makes no two groups"
            if numeric
            else f"the agreed vocabulary has no static code '{group}'",
            f"name one of: {', '.join(codes) or 'none, this study has no static code without a number'}",
        )
    member: NDArray[np.bool_] = store.static[:, names.index(group)] > 0.5
    return member


def sendable(
    label: NDArray[np.bool_],
    right: NDArray[np.bool_],
    member: NDArray[np.bool_],
    metric: Metric,
    min_cell: int,
) -> dict[str, float]:
    """The facts that may leave a site; arguments (n,), one for each of its training stays.

    >>> label, right = np.array([True] * 10 + [False] * 10), np.array([True, False] * 10)
    >>> sendable(label, right, np.arange(20) < 4, "equal_opportunity", min_cell=3)  # 2 + 2 of the group
    {'right': 10.0, 'wrong': 10.0}
    """

    def may_leave(cells: Sequence[int]) -> bool:
        return all(cell == 0 or cell >= min_cell for cell in cells)

    counted = label if metric == "equal_opportunity" else np.ones_like(label)
    cells = [int((counted & (member == of) & (right == is_right)).sum()) for of, is_right in _CELLS]
    every = [int(right.sum()), int((~right).sum())]
    facts = {}
    if may_leave(cells):
        facts = {name: float(cell) for name, cell in zip(GROUPS, cells, strict=True)}
    rest = [every[0] - cells[0] - cells[2], every[1] - cells[1] - cells[3]]
    if may_leave(every) and (not facts or may_leave(rest)):
        facts |= {name: float(cell) for name, cell in zip(ALL, every, strict=True)}
    return facts


_CELLS = ((True, True), (True, False), (False, True), (False, False))
"""Member, right: in the order of GROUPS."""
