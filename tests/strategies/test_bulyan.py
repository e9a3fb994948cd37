"""Bulyan against its definition: Krum anew after each choice, then the values nearest to their median."""

from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.test_krum import after, made, scores

pytestmark = pytest.mark.usefixtures("flower_task")


def bulyan(points: np.ndarray, faulty: int) -> np.ndarray:
    """The paper's algorithm, one coordinate at a time."""
    left, chosen = list(range(len(points))), []
    for _ in range(len(points) - 2 * faulty):
        close = max(1, len(left) - faulty - 2)  # as Krum has it, and one where none would be left
        rest = points[left]
        best = left[int(np.argmin(scores(rest, len(left) - 2 - close)))] if len(left) > 1 else left[0]
        chosen.append(best)
        left.remove(best)
    kept = len(chosen) - 2 * faulty
    means = []
    for column in points[chosen].T:
        nearest = np.argsort(np.abs(column - np.median(column)), kind="stable")[:kept]
        means.append(column[nearest].mean())
    return np.array(means)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("faulty", "count"), [(0, 4), (1, 7), (1, 8), (2, 11)])
def test_equals_its_definition(faulty: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, current = rng.normal(size=(count, 5)), rng.normal(size=5)
    found = after(made(name="bulyan", faulty=faulty), current, points)
    np.testing.assert_allclose(found, bulyan(points, faulty), rtol=1e-9)


def test_it_chooses_anew_after_each_choice_and_flower_does_not() -> None:
    differ = 0
    for seed in range(20):
        points = np.random.default_rng(seed).normal(size=(7, 2))
        ours = after(made(name="bulyan"), np.zeros(2), points)
        flower_s = after(made(name="flower.Bulyan", num_malicious_nodes=1), np.zeros(2), points)
        differ += not np.allclose(ours, flower_s)
    assert differ > 0


def test_nobody_faulty_is_the_mean() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    found = after(made(name="bulyan", faulty=0), np.zeros(3), points)
    np.testing.assert_allclose(found, points.mean(axis=0), rtol=1e-12)
