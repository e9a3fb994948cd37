"""How well a score tells whom a model was trained on: the figures of one membership attack.

The score is any number a person; the larger, the likelier is membership. Figures are those that the field
has agreed on (Carlini et al. 2022, https://arxiv.org/abs/2112.03570, section IV): not the mean over all
people, which hides that a few are found for sure, but the share that is found at very few false alarms.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.bootstrap import BootstrapSettings, Figure, with_intervals
from hymate.evaluate.ranking import Ranking

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONFIDENCE = 0.95
FALSE_ALARMS = 0.001


@dataclass(frozen=True)
class Found:
    """Members found by calling everybody above a threshold a member."""

    false_alarms: float
    """Share of others who are called so, at most."""
    share: float
    """Of members who are found."""
    interval: tuple[float, float]
    """Clopper and Pearson's, 95 %."""


@dataclass(frozen=True)
class Attack:
    """One attack's figures. n people, half of them members at best."""

    name: str
    auc: Figure
    """0.5: as good as guessing."""
    found: Found
    """At `FALSE_ALARMS`."""
    resolved: bool
    """Whether there are people enough for so small a share: one false alarm of all is `FALSE_ALARMS` or less.
    Where not, `found` allows none at all, and `finest` one."""
    finest: Found
    """At the smallest share above 0 that so many people can show."""
    epsilon_floor: float
    """No (epsilon, delta) below it holds, with 95 % confidence; 0: the attack refutes none."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(name: str, score: Floats, member: Bools, delta: float, bootstrap: BootstrapSettings) -> Attack:
    """Figures of `score` (n,) against who is a member (n,); both groups have people."""
    ranking = Ranking(member.astype(np.float64), score)
    figures = with_intervals(ranking.figures, np.arange(len(score)), bootstrap)
    others = int((~member).sum())
    return Attack(
        name=name,
        auc=figures["auroc"],
        found=_found(score, member, math.floor(FALSE_ALARMS * others)),
        resolved=others * FALSE_ALARMS >= 1,
        finest=_found(score, member, 1),
        epsilon_floor=epsilon_floor(score, member, delta, bootstrap.seed),
    )


def epsilon_floor(score: Floats, member: Bools, delta: float, seed: int = 0) -> float:
    """The largest epsilon that the attack refutes, at 95 % confidence; 0 where it refutes none.

    Under (epsilon, delta) no rule finds a share t of members at a share f of false alarms unless
    t <= e^epsilon f + delta, nor leaves others alone at a better rate than the same with t and f exchanged
    (Kairouz et al. 2015, https://arxiv.org/abs/1311.0776). Shares are taken at the ends of Clopper and
    Pearson's intervals (Jagielski et al. 2020, https://arxiv.org/abs/2006.07709; Nasr et al. 2021,
    https://arxiv.org/abs/2101.04535). The threshold is chosen on one half of the people and judged on the
    other, so that choosing costs no confidence.

    It is a bound for one model whose members were drawn at random from the same people as the others; people
    of one model are not quite independent (Steinke et al. 2023, https://arxiv.org/abs/2305.08846).
    """
    half = np.zeros(len(score), bool)
    rng = np.random.default_rng(seed)
    for group in (member, ~member):
        people = rng.permutation(np.flatnonzero(group))
        half[people[: len(people) // 2]] = True
    judge = partial(_refuted, score[~half], member[~half], delta)
    candidates = [(threshold, above) for threshold in np.unique(score[half]) for above in (True, False)]
    best = max(candidates, key=lambda each: _refuted(score[half], member[half], delta, *each))
    return max(0.0, judge(*best))


def _refuted(score: Floats, member: Bools, delta: float, threshold: float, above: bool) -> float:
    """Epsilon that this one rule refutes: "above" names members, "below" names others."""
    named = score >= threshold if above else score < threshold
    true, false = (member, ~member) if above else (~member, member)
    low, _ = _clopper_pearson(int(named[true].sum()), int(true.sum()))
    _, high = _clopper_pearson(int(named[false].sum()), int(false.sum()))
    return math.log((low - delta) / high) if low > delta else -math.inf


def _found(score: Floats, member: Bools, alarms: int) -> Found:
    """At the lowest threshold with this many false alarms at most, ties included."""
    others = np.sort(score[~member])[::-1]
    threshold = others[alarms] if alarms < len(others) else -math.inf
    number, members = int((score[member] > threshold).sum()), int(member.sum())
    interval = _clopper_pearson(number, members)
    return Found(alarms / len(others), number / members, interval)


def _clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """Interval of a share that covers with 95 % at least, 2.5 % off at either end
    (https://doi.org/10.1093/biomet/26.4.404)."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return low, high
