"""FairFed: gaps and weights as computed by hand, and what does not leave a site."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hymate.errors import InputFault
from strategies.base import Round, Update
from strategies.fairfed import ALL, GROUPS, gaps, members_of, sendable
from strategies.registry import make_algorithm
from tests.strategies.halves import Halves, Hospital, StrategyConfig
from tests.strategies.quadratics import RATE, unlike

STRATEGY: dict[str, Any] = {"name": "fairfed", "group": "GENDER//F", "beta": 1.0}
NAMES = ("AGE", "AGE?", "GENDER//F", "GENDER//M")


def said(groups: tuple[int, ...] | None, every: tuple[int, int] | None) -> dict[str, float]:
    facts = dict(zip(GROUPS, map(float, groups), strict=True)) if groups else {}
    return facts | (dict(zip(ALL, map(float, every), strict=True)) if every else {})


def test_gaps_are_distances_to_the_gap_of_all_counts_together() -> None:
    """a: 8/10 - 6/10; b: 5/10 - 30/40; together 13/20 - 36/50."""
    found = gaps({"a": said((8, 2, 6, 4), (50, 10)), "b": said((5, 5, 30, 10), (70, 30))})
    together = 13 / 20 - 36 / 50
    assert found == pytest.approx({"a": abs(0.2 - together), "b": abs(-0.25 - together)})


def test_a_site_without_a_gap_counts_by_its_accuracy() -> None:
    """b has nobody of the group, c may not say: |A_k - A|, where A is of all sites' stays."""
    found = gaps(
        {
            "a": said((8, 2, 6, 4), (50, 10)),
            "b": said((0, 0, 30, 10), (70, 30)),
            "c": said(None, (30, 10)),
            "d": said(None, None),
        }
    )
    fairness, accuracy = 8 / 10 - 36 / 50, 150 / 200
    assert found == pytest.approx(
        {"a": abs(0.2 - fairness), "b": abs(0.7 - accuracy), "c": abs(0.75 - accuracy)}
    )


def test_where_the_group_is_nowhere_all_count_by_accuracy() -> None:
    found = gaps({"a": said((0, 0, 6, 4), (50, 10)), "b": said((0, 0, 30, 10), (30, 10))})
    assert found == pytest.approx({"a": abs(50 / 60 - 0.8), "b": abs(0.75 - 0.8)})


def test_impossible_counts_are_no_counts() -> None:
    assert gaps({"a": said((-8, 2, 6, 4), None), "b": {"right": 1.0}}) == {}


def updates(**facts: dict[str, float]) -> list[Update]:
    points = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [3.0, 3.0]}
    stays = {"a": 30.0, "b": 10.0, "c": 20.0}
    return [
        Update({"w": np.array(points[site])}, stays[site], site, facts=said) for site, said in facts.items()
    ]


A, B = said((8, 2, 6, 4), (50, 10)), said((5, 5, 30, 10), (70, 30))


def test_weights_move_against_the_distance_and_add_up_over_rounds() -> None:
    algorithm = make_algorithm(StrategyConfig(**{**STRATEGY, "beta": 0.5}))
    current = {"w": np.zeros(2)}
    found = gaps({"a": A, "b": B})
    half = (found["a"] - found["b"]) / 2  # the distance of a from the mean; b's is the opposite
    first = algorithm.aggregate(Round(1, 2), current, updates(a=A, b=B))["w"]
    np.testing.assert_allclose(first, [0.75 - 0.5 * half, 0.25 + 0.5 * half])
    second = algorithm.aggregate(Round(2, 2), current, updates(a=A, b=B))["w"]
    np.testing.assert_allclose(second, [0.75 - half, 0.25 + half])
    assert abs(half) > 0.04


def test_no_weight_goes_below_zero_and_one_at_zero_comes_back() -> None:
    algorithm = make_algorithm(StrategyConfig(**{**STRATEGY, "beta": 1000.0}))
    current = {"w": np.zeros(2)}
    found = gaps({"a": A, "b": B})
    assert found["a"] > found["b"]
    assert algorithm.aggregate(Round(1, 2), current, updates(a=A, b=B))["w"].tolist() == [0.0, 1.0]
    back = algorithm.aggregate(Round(2, 2), current, updates(a=B, b=A))["w"]
    assert back[0] > 0.3


def test_a_round_of_sites_without_weight_is_their_plain_mean() -> None:
    algorithm = make_algorithm(StrategyConfig(**{**STRATEGY, "beta": 1000.0}))
    algorithm.aggregate(Round(1, 2), {"w": np.zeros(2)}, updates(a=A, b=B))
    assert algorithm.aggregate(Round(2, 2), {"w": np.zeros(2)}, updates(a={}))["w"].tolist() == [1.0, 0.0]


def test_a_site_that_sends_nothing_keeps_its_weight() -> None:
    algorithm = make_algorithm(StrategyConfig(**STRATEGY))
    algorithm.aggregate(Round(1, 3), {"w": np.zeros(2)}, updates(a=A, b=B, c={}))
    assert set(algorithm.state()) & {"moved/a", "moved/b", "moved/c"} == {"moved/a", "moved/b"}


class Cohort:
    """Enough of a store: static codes, labels, and scores by row."""

    def __init__(self, seed: int, stays: int) -> None:
        rng = np.random.default_rng(seed)
        self.header = SimpleNamespace(static_names=NAMES)
        self.label = (rng.random(stays) < 0.4).astype(np.float32)
        self.label[0] = np.nan
        member = rng.random(stays) < 0.5
        self.static = np.stack([rng.normal(size=stays), np.zeros(stays), member, ~member], 1)
        self.scores = rng.random(stays)

    def rows(self, split: str) -> np.ndarray:
        assert split == "train"
        return np.arange(len(self.label))


def with_cohorts() -> list[Hospital]:
    hospitals = unlike()
    for seed, hospital in enumerate(hospitals):
        hospital.store = Cohort(seed, 80)
        hospital.score = lambda rows, store=hospital.store: store.scores[rows]
    return hospitals


def test_no_movement_is_fedavg_bit_for_bit() -> None:
    """beta 0, and pretraining, in which sites have nothing to send."""
    plain = Halves({"name": "fedavg"}, unlike(), RATE).run(4).point.tobytes()
    assert Halves({**STRATEGY, "beta": 0.0}, with_cohorts(), RATE).run(4).point.tobytes() == plain
    assert Halves(STRATEGY, unlike(), RATE).run(4).point.tobytes() == plain
    assert Halves(STRATEGY, with_cohorts(), RATE).run(4).point.tobytes() != plain


def test_moved_weights_survive_a_restart(tmp_path: Path) -> None:
    """Between rounds of different sites, so that more than the last round matters."""
    through = Halves(STRATEGY, with_cohorts(), RATE)
    stopped = Halves(STRATEGY, with_cohorts(), RATE)
    for number in range(4):
        chosen = [[0, 1], [1, 2], [0, 2], [0, 1, 2]][number]
        through.run(1, taking_part=lambda _, chosen=chosen: chosen)
        stopped.run(1, taking_part=lambda _, chosen=chosen: chosen).restart(tmp_path)
    assert stopped.point.tobytes() == through.point.tobytes()


def test_what_a_site_sends_is_counted_as_stated() -> None:
    hospital = with_cohorts()[0]
    made = Halves(STRATEGY, [hospital], RATE).run(1)
    store, facts = hospital.store, made.updates[0].facts
    rows = np.arange(1, 80)  # the first has no label
    member, label = store.static[rows, 2] > 0.5, store.label[rows] == 1
    caught = store.scores[rows] >= 0.5
    assert facts["member_right"] == (member & label & caught).sum()
    assert facts["member_wrong"] == (member & label & ~caught).sum()
    assert facts["other_right"] == (~member & label & caught).sum()
    assert facts["right"] == (caught == label).sum()
    assert facts["right"] + facts["wrong"] == 79


def counts(member_right: int, member_wrong: int, other_right: int, other_wrong: int, *rest: int) -> Any:
    """Stays with the label as named, and without it right and wrong as in `rest`."""
    cells = [(True, True, True), (True, False, True), (True, True, False), (True, False, False)]
    cells += [(False, True, True), (False, False, True)]
    numbers = (member_right, member_wrong, other_right, other_wrong, *rest)
    rows = [cell for cell, number in zip(cells, numbers, strict=True) for _ in range(number)]
    return tuple(np.array(rows).T)


@pytest.mark.parametrize(
    ("numbers", "sent"),
    [
        ((5, 6, 7, 8, 20, 20), {"member_right": 5, "member_wrong": 6, "other_right": 7, "other_wrong": 8}),
        ((0, 6, 7, 8, 20, 20), {"member_right": 0, "member_wrong": 6, "other_right": 7, "other_wrong": 8}),
        ((4, 6, 7, 8, 20, 20), {}),
        ((5, 4, 7, 8, 20, 20), {}),
        ((5, 6, 1, 8, 20, 20), {}),
        ((5, 6, 7, 4, 20, 20), {}),
    ],
)
def test_small_counts_stay_and_take_their_groups_with_them(
    numbers: tuple[int, ...], sent: dict[str, int]
) -> None:
    facts = sendable(*counts(*numbers), "equal_opportunity", 5)
    right = numbers[0] + numbers[2] + numbers[4]
    assert facts == {**sent, "right": right, "wrong": sum(numbers) - right}


@pytest.mark.parametrize("rest", [(4, 20), (20, 4)])
def test_no_small_count_follows_from_a_difference(rest: tuple[int, int]) -> None:
    """All right less right with the label would be 4 without it."""
    assert set(sendable(*counts(5, 6, 7, 8, *rest), "equal_opportunity", 5)) == set(GROUPS)
    assert set(sendable(*counts(4, 6, 7, 8, *rest), "equal_opportunity", 5)) == set(ALL)


def test_few_stays_send_nothing() -> None:
    assert sendable(*counts(0, 1, 0, 0, 20, 0), "equal_opportunity", 5) == {}


def test_accuracy_counts_everybody() -> None:
    label, right, member = counts(5, 6, 7, 8, 20, 21)
    facts = sendable(label, right, member, "accuracy", 5)
    assert facts == said((25, 27, 7, 8), (32, 35))


def store_of(names: tuple[str, ...]) -> Any:
    return SimpleNamespace(header=SimpleNamespace(static_names=names), static=np.eye(len(names)))


def test_members_have_the_code() -> None:
    assert members_of(store_of(NAMES), "GENDER//F").tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("names", "group", "words"),
    [
        (NAMES, "AGE", "'AGE' is a number, and makes no two groups; name one of: GENDER//F, GENDER//M"),
        (NAMES, "AGE?", "no static code 'AGE.'"),
        (NAMES, "SEX", "no static code 'SEX'; name one of: GENDER//F, GENDER//M"),
        ((), "SEX", "none, this study has no static code without a number"),
    ],
)
def test_groups_that_are_none_are_refused(names: tuple[str, ...], group: str, words: str) -> None:
    with pytest.raises(InputFault, match=words):
        members_of(store_of(names), group)


def test_a_group_must_be_named() -> None:
    with pytest.raises(InputFault, match="key 'group' is missing"):
        make_algorithm(StrategyConfig(name="fairfed"))
