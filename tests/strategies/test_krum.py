"""Krum against its definition, and where Flower's own goes wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hymate.strategy_config import StrategyConfig
from strategies.base import Algorithm, Round, Update
from strategies.registry import make_algorithm

pytestmark = pytest.mark.usefixtures("flower_task")


def made(**settings: Any) -> Algorithm:
    return make_algorithm(StrategyConfig.model_validate(settings))


def scores(points: np.ndarray, faulty: int) -> np.ndarray:
    """Sum of squared distances to the n - f - 2 nearest others, pair by pair."""
    found = []
    for index, point in enumerate(points):
        distances = sorted(
            float(np.sum((point - other) ** 2)) for at, other in enumerate(points) if at != index
        )
        found.append(sum(distances[: len(points) - faulty - 2]))
    return np.array(found)


def after(algorithm: Algorithm, current: np.ndarray, points: np.ndarray) -> np.ndarray:
    updates = [Update({"w": point}, float(1 + index), str(index)) for index, point in enumerate(points)]
    return np.asarray(algorithm.aggregate(Round(1, len(points)), {"w": current}, updates)["w"], np.float64)


@pytest.mark.parametrize("faulty", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_equals_its_definition(faulty: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, current = rng.normal(size=(7, 6)), rng.normal(size=6)
    best = points[int(np.argmin(scores(points, faulty)))]
    np.testing.assert_allclose(after(made(name="krum", faulty=faulty), current, points), best, rtol=1e-12)


def near_weights() -> tuple[np.ndarray, np.ndarray]:
    """Five sites in float32 whose weights are long and differ little; the fourth is the odd one out."""
    rng = np.random.default_rng(0)
    current = (rng.normal(size=1000) * 30).astype(np.float32)
    away = rng.normal(size=(5, 1000)) * np.array([[2e-4], [2e-4], [2e-4], [2e-3], [2e-4]])
    return current, (current + away).astype(np.float32)


def test_float32_weights_keep_their_bits_and_their_distances() -> None:
    """||x||^2 is 9e5, distances are 1e-4: below what float32 tells apart at that size."""
    current, points = near_weights()
    best = int(np.argmin(scores(points.astype(np.float64), 1)))
    updates = [Update({"w": point}, 1.0, str(index)) for index, point in enumerate(points)]
    chosen = made(name="krum").aggregate(Round(1, 5), {"w": current}, updates)["w"]
    assert chosen.tobytes() == points[best].tobytes()


def test_flower_s_own_distances_drown_there() -> None:
    """A known weakness; when this fails, Flower was mended, and its note in `strategies.flower` can go."""
    from flwr.serverapp.strategy.multikrum import compute_distances

    from strategies.wire import pack_weights

    _, points = near_weights()
    rough = compute_distances([pack_weights({"w": point}) for point in points])
    exact = ((points[:, None].astype(np.float64) - points[None]) ** 2).sum(axis=2)
    off = ~np.eye(5, dtype=bool)
    assert np.abs(rough - exact)[off].max() > 10 * exact[off].max()
