"""Statistics with noise: what a person can change, what noise there is, and what is right without it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hymate.config import RangeConfig
from hymate.data.noisy_statistics import LEAST_SPREAD, noisy_counts, noisy_statistics, sums_by_person
from hymate.data.statistics import code_statistics, training_rows
from tests.hymate.data.small import NAN, Triplet, windows

CODES = {"HR": RangeConfig(low=40.0, high=140.0), "K": RangeConfig(low=2.0, high=7.0), "SEEN": RangeConfig()}


def none(count: int) -> NDArray[np.float64]:
    return np.zeros(count)


def ones(count: int) -> NDArray[np.float64]:
    return np.ones(count)


VALUES = st.one_of(st.floats(-1e6, 1e6, width=32), st.just(NAN))
STAYS = st.lists(
    st.lists(st.tuples(st.floats(0, 48), st.sampled_from([*CODES, "UNLISTED"]), VALUES), max_size=12),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(STAYS, st.integers(0, 2))
def test_one_person_changes_the_sums_by_the_norm_at_most(stays: list[list[Triplet]], people: int) -> None:
    """Whatever their stays hold: all stays here are of one person, those of others stand beside."""
    others: list[list[Triplet]] = [[(1.0, "HR", 90.0), (2.0, "K", 4.0)]] * people
    names = sorted(CODES)

    def sums(content: list[list[Triplet]], subjects: list[int]) -> NDArray[np.float64]:
        dynamic, _, count = training_rows(windows(content, subjects=subjects), {}, (), "")
        return np.append(sums_by_person(dynamic, CODES, names).ravel(), count)

    without = list(range(people))
    difference = sums([*others, *stays], [*without, *[99] * len(stays)]) - sums(others, without)
    assert np.linalg.norm(difference) <= math.sqrt(3 * len(CODES) + 1) + 1e-9


def test_without_noise_it_says_what_the_exact_statistics_say() -> None:
    """Of one observation a person and code, within the range."""
    rng = np.random.default_rng(0)
    stays: list[list[Triplet]] = [
        [(1.0, "HR", rng.uniform(50, 130)), (2.0, "K", rng.uniform(3, 6)), (3.0, "SEEN", NAN)]
        for _ in range(40)
    ]
    made = windows(stays, static={i: [("HR", 60.0)] for i in range(3)})
    noisy = noisy_statistics(made, {"HR": "bpm"}, CODES, 0.0, none)
    exact = code_statistics(made, {"HR": "bpm"})
    assert (noisy.stays, noisy.subjects) == (exact.stays, exact.subjects)
    for found, true in zip(noisy.dynamic, exact.dynamic, strict=True):
        assert (found.code, found.unit, found.count, found.numeric) == (
            *(true.code, true.unit, true.count, true.numeric),
        )
        assert found.mean == pytest.approx(true.mean)
        assert found.m2 == pytest.approx(true.m2, rel=1e-6)
        assert found.sketches == ()
    assert noisy.static == ()  # who has a code with a time does not have it once more without


def test_many_observations_are_one_and_values_out_of_range_are_clipped() -> None:
    chatty: list[Triplet] = [(float(hour), "HR", 140.0) for hour in range(40)]
    made = windows([chatty, [(1.0, "HR", 40.0)], [(1.0, "HR", -5000.0)]])
    (found,) = noisy_statistics(made, {}, CODES, 0.0, none).dynamic
    assert found.count == 3
    assert found.mean == pytest.approx((140 + 40 + 40) / 3)


def test_static_codes_and_codes_nobody_asked_for() -> None:
    made = windows(
        [[(1.0, "UNLISTED", 1.0)]] * 4,
        static={i: [("K", 4.0), ("GENDER//F", None)] for i in range(4)},
    )
    found = noisy_statistics(made, {}, CODES, 0.0, none)
    assert found.dynamic == ()
    assert [entry.code for entry in found.static] == ["K"]
    assert found.static[0].mean == pytest.approx(4.0)


def test_noise_is_the_multiplier_times_the_norm() -> None:
    people = 400
    made = windows([[(1.0, "HR", 90.0)]] * people)  # the middle of its range: z is 0
    deviation = 2.0 * math.sqrt(3 * len(CODES) + 1)
    found = noisy_statistics(made, {}, CODES, 2.0, ones)
    (entry,) = found.dynamic
    assert found.subjects == people + round(deviation)
    assert entry.count == people + round(deviation)
    z = deviation / entry.count
    assert entry.mean == pytest.approx(90.0 + 50.0 * z, rel=1e-6)
    assert entry.m2 == pytest.approx(50.0**2 * max(z - z * z, LEAST_SPREAD**2) * entry.count)
    drawn: list[int] = []

    def counted(count: int) -> NDArray[np.float64]:
        drawn.append(count)
        return np.zeros(count)

    noisy_statistics(made, {}, CODES, 2.0, counted)
    assert sum(drawn) == 2 * 3 * len(CODES) + 1  # a number of its own for every sum


def test_codes_that_may_be_noise_alone_are_left_out() -> None:
    deviation = 2.0 * math.sqrt(3 * len(CODES) + 1)
    for people, told in ((math.floor(3 * deviation) - 1, 0), (math.ceil(3 * deviation) + 1, 1)):
        made = windows([[(1.0, "HR", 90.0)]] * people)
        assert len(noisy_statistics(made, {}, CODES, 2.0, none).dynamic) == told


def test_counts_are_of_people() -> None:
    made = windows(
        [[]] * 6,
        subjects=[1, 1, 1, 2, 3, 4],
        splits=["train"] * 4 + ["tuning", "held_out"],
        labels=[1.0, 1.0, 0.0, 0.0, 1.0, None],
    )
    assert noisy_counts(made, 0.0, none) == {"train": (2, 1), "tuning": (1, 1), "held_out": (1, 0)}
    shift = round(3.0 * math.sqrt(2))
    assert noisy_counts(made, 3.0, ones)["train"] == (2 + shift, 1 + shift)
    assert noisy_counts(made, 3.0, lambda count: -np.ones(count))["train"] == (0, 0)
