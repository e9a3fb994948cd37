"""The figures of a membership attack, against hand-made scores and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hymate.audit.attack import Attack, epsilon_floor, measure
from hymate.evaluate.bootstrap import BootstrapSettings

FEW = BootstrapSettings(200)


def groups(members: int, others: int) -> np.ndarray:
    return np.repeat([True, False], [members, others])


def attack(score: np.ndarray, member: np.ndarray) -> Attack:
    return measure("made", score, member, 1e-5, FEW)


def test_a_perfect_score_finds_everybody() -> None:
    member = groups(200, 200)
    found = attack(member + np.arange(400) / 1000, member)
    assert found.auc.value == found.auc.lower == 1.0
    assert found.found.share == 1.0
    assert found.found.interval == pytest.approx(stats.binomtest(200, 200).proportion_ci(method="exact"))
    never = 0.025 ** (1 / 100)  # of 100 people judged none is called wrongly
    assert found.epsilon_floor == pytest.approx(math.log((never - 1e-5) / (1 - never)))


def test_chance_is_within_the_interval_and_refutes_nothing() -> None:
    member = groups(150, 100)
    found = [attack(np.random.default_rng(seed).normal(size=250), member) for seed in range(20)]
    covered = [each.auc.lower <= 0.5 <= each.auc.upper for each in found if each.auc.lower and each.auc.upper]
    assert sum(covered) >= 17
    assert sum(each.epsilon_floor > 0 for each in found) <= 2


@pytest.mark.parametrize(("others", "alarms"), [(999, 0), (1000, 1), (2500, 2)])
def test_so_few_false_alarms_as_people_allow(others: int, alarms: int) -> None:
    """Members at 0.5, 1.5, 2.5, ...; of the others some lie above, one by one."""
    members = 10
    score = np.concatenate([np.arange(members) + 0.5, np.zeros(others - 5), [2.0, 4.0, 6.0, 8.0, 9.0]])
    found = attack(score, groups(members, others))
    threshold = [9.0, 8.0, 6.0][alarms]
    assert found.resolved == (others >= 1000)
    assert found.found.false_alarms == pytest.approx(alarms / others)
    assert found.found.share == np.mean(np.arange(members) + 0.5 > threshold)
    exact = stats.binomtest(round(found.found.share * members), members).proportion_ci(method="exact")
    assert found.found.interval == pytest.approx(exact)
    assert found.finest.share == np.mean(np.arange(members) + 0.5 > 8.0)


def test_ties_are_not_found() -> None:
    found = attack(np.zeros(60), groups(30, 30))
    assert found.auc.value == 0.5
    assert found.found.share == found.finest.share == 0.0
    assert found.epsilon_floor == 0.0


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_randomised_response_is_bounded_by_its_epsilon(epsilon: float) -> None:
    """Whose epsilon is known: the floor comes near it, from below."""
    member = groups(8000, 8000)
    true = np.random.default_rng(1).random(16000) < math.exp(epsilon) / (1 + math.exp(epsilon))
    floor = epsilon_floor(np.where(true, member, ~member).astype(float), member, 1e-5)
    assert 0.8 * epsilon < floor < epsilon
    low = epsilon_floor(np.where(true, member, ~member).astype(float), member, 0.2)
    assert low < floor
