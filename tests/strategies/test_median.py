"""The median against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.test_krum import after, made

pytestmark = pytest.mark.usefixtures("flower_task")


@pytest.mark.parametrize("count", [3, 4, 7])
def test_equals_numpy(count: int) -> None:
    rng = np.random.default_rng(count)
    points, current = rng.normal(size=(count, 6)), rng.normal(size=6)
    found = after(made(name="median"), current, points)
    np.testing.assert_allclose(found, np.median(points, axis=0), rtol=1e-12)


def test_faulty_says_only_how_many_sites_there_must_be() -> None:
    points = np.random.default_rng(0).normal(size=(7, 3))
    one, three = (after(made(name="median", faulty=f), np.zeros(3), points) for f in (1, 3))
    assert one.tobytes() == three.tobytes()
    assert made(name="median", faulty=3).fewest() == 7
