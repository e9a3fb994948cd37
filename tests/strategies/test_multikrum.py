"""Multi-Krum against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from hymate.strategy_config import StrategyConfig
from strategies.registry import make_algorithm
from tests.strategies.test_krum import after, made, scores

pytestmark = pytest.mark.usefixtures("flower_task")


@pytest.mark.parametrize(("selected", "averaged"), [(None, 5), (1, 1), (3, 3)])
def test_equals_the_plain_mean_of_the_best_scores(selected: int | None, averaged: int) -> None:
    """Of eight sites with one faulty, n - f - 2 = 5 unless it is said; sizes make no difference."""
    rng = np.random.default_rng(2)
    points, current = rng.normal(size=(8, 6)), rng.normal(size=6)
    best = points[np.argsort(scores(points, 1))[:averaged]].mean(axis=0)
    np.testing.assert_allclose(after(made(name="multikrum", selected=selected), current, points), best)


def test_one_selected_is_krum() -> None:
    points = np.random.default_rng(4).normal(size=(6, 3))
    one = after(made(name="multikrum", selected=1), np.zeros(3), points)
    assert one.tobytes() == after(made(name="krum"), np.zeros(3), points).tobytes()


def test_more_selected_need_more_sites() -> None:
    for settings, needed in (({}, 5), ({"selected": 4}, 7), ({"faulty": 2}, 7), ({"faulty": 0}, 3)):
        strategy = StrategyConfig.model_validate({"name": "multikrum", **settings})
        assert make_algorithm(strategy).fewest() == needed
