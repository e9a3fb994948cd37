"""The trimmed mean against scipy, and how many values are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from strategies.trimmed_mean import cut_share
from tests.strategies.test_krum import after, made

pytestmark = pytest.mark.usefixtures("flower_task")


@given(st.integers(0, 40), st.integers(1, 100))
def test_the_share_cuts_as_many_as_it_should(faulty: int, more: int) -> None:
    sites = 2 * faulty + more
    assert int(cut_share(faulty, sites) * sites) == faulty
    assert cut_share(faulty, sites) < 0.5


@pytest.mark.parametrize(("faulty", "count"), [(0, 4), (1, 3), (1, 4), (1, 5), (2, 5), (2, 7)])
def test_equals_scipy(faulty: int, count: int) -> None:
    rng = np.random.default_rng(count)
    points, current = rng.normal(size=(count, 6)), rng.normal(size=6)
    expected = trim_mean(points, (faulty + 0.25) / count, axis=0)
    found = after(made(name="trimmed_mean", faulty=faulty), current, points)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_of_four_sites_flower_s_share_of_a_fifth_cuts_none() -> None:
    points = np.array([[0.0], [1.0], [2.0], [1000.0]])
    assert after(made(name="flower.FedTrimmedAvg", beta=0.2), np.zeros(1), points) == pytest.approx([250.75])
    assert after(made(name="trimmed_mean"), np.zeros(1), points) == pytest.approx([1.5])


def test_nothing_cut_is_the_mean() -> None:
    points = np.random.default_rng(0).normal(size=(4, 3))
    found = after(made(name="trimmed_mean", faulty=0), np.zeros(3), points)
    np.testing.assert_allclose(found, points.mean(axis=0), rtol=1e-12)
