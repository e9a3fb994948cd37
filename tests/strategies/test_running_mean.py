"""The mean of updates that come one by one."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from strategies.base import Arrays
from strategies.running_mean import RunningMean


def updates(sites: int, seed: int = 0) -> list[tuple[Arrays, float]]:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-8, 4, size=40)
    return [
        ({"w": (scale * rng.normal(size=40)).astype(np.float32)}, float(rng.uniform(0.1, 5000)))
        for _ in range(sites)
    ]


def mean_of(given: list[tuple[Arrays, float]]) -> np.ndarray:
    running = RunningMean()
    for arrays, weight in given:
        running.add(arrays, weight)
    return running.mean()["w"]


def test_the_order_makes_no_difference_to_any_bit() -> None:
    given = updates(5)
    for order in itertools.permutations(given):
        assert mean_of(list(order)).tobytes() == mean_of(given).tobytes()
    # a plain sum's bits do depend on it, so this test can fail
    plain = {
        sum(a["w"].astype(np.float64) * w for a, w in order).tobytes()
        for order in itertools.permutations(given)
    }
    assert len(plain) > 1


def test_it_is_the_mean_in_exact_arithmetic() -> None:
    given = updates(300)
    weight = sum(Fraction(w) for _, w in given)
    for column, found in enumerate(mean_of(given)):
        exact = sum(Fraction(float(a["w"][column])) * Fraction(w) for a, w in given) / weight
        assert float(found) == pytest.approx(float(exact), rel=2**-23, abs=2**-50)


def test_one_update_comes_back_bit_for_bit_and_two_alike_are_themselves() -> None:
    ((arrays, weight),) = updates(1)
    assert mean_of([(arrays, weight)]).tobytes() == arrays["w"].tobytes()
    assert mean_of([(arrays, 3.0), (arrays, 5.0)]).tobytes() == arrays["w"].tobytes()


def test_large_and_cancelling_terms_are_exact() -> None:
    big, small = np.array([2.0**30], np.float32), np.array([2.0**-20], np.float32)
    for order in itertools.permutations([big, -big, small]):
        running = RunningMean()
        for array in order:
            running.add({"w": array}, 1.0)
        assert running.mean()["w"].item() == np.float32(2.0**-20 / 3)


def test_memory_does_not_grow_with_the_updates() -> None:
    running, held = RunningMean(), []
    for arrays, weight in updates(50):
        running.add(arrays, weight)
        held.append(
            sum(part.nbytes for parts in running._sums.values() for part in parts if part is not None)
        )
    assert held[-1] <= 3 * 8 * 40
    assert running.weight == math.fsum(weight for _, weight in updates(50))
