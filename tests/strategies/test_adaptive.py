"""FedAdam, FedYogi, FedAdagrad: the paper's recurrences, Flower's as a reference, and the scale of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hymate.strategy_config import StrategyConfig
from strategies.adaptive import (
    adagrad_moment,
    adam_moment,
    adaptive_step,
    first_moment,
    yogi_moment,
)
from strategies.base import Arrays, Round, Update
from strategies.registry import make_algorithm
from tests.strategies.halves import Halves, Hospital

ALL = ["fedadam", "fedyogi", "fedadagrad"]
HOSPITALS = [
    Hospital("a", [1.0, 2.0, -1.0], stays=30, steps=5),
    Hospital("b", [-1.0, 0.0, 3.0], [0.5, 1.0, 2.0], stays=10, steps=3),
]
NUMBERS = st.floats(-3, 3, allow_nan=False)


def test_moments_by_hand() -> None:
    v, delta = np.array([0.04, 1.0]), np.array([0.5, -0.5])
    assert first_moment(np.array([1.0]), np.array([3.0]), 0.75).tolist() == [1.5]
    assert adagrad_moment(v, delta) == pytest.approx([0.29, 1.25])
    assert adam_moment(v, delta, 0.9) == pytest.approx([0.061, 0.925])
    assert yogi_moment(v, delta, 0.9) == pytest.approx([0.065, 0.975])
    assert adaptive_step(np.array([2.0]), np.array([9.0]), 0.1, 1.0).tolist() == [0.05]


@given(NUMBERS, st.floats(0, 9), st.floats(0, 0.99))
def test_second_moments_are_never_negative_and_yogi_moves_no_more_than_adam(
    delta: float, v: float, beta_2: float
) -> None:
    """|v_yogi - v| = (1 - beta_2) Delta^2; both go the same way, or not at all."""
    before, change = np.array([v]), np.array([delta])
    adam, yogi = adam_moment(before, change, beta_2)[0], yogi_moment(before, change, beta_2)[0]
    assert adam >= 0
    assert yogi >= 0
    assert abs(yogi - v) == pytest.approx((1 - beta_2) * delta**2 * (v != delta**2), abs=1e-12)
    assert (yogi - v) * (adam - v) >= -1e-12


def paper(name: str, deltas: list[np.ndarray], eta: float, beta_1: float, beta_2: float, tau: float) -> Any:
    """Algorithm 2, written down anew: the way of w from 0 under given mean changes."""
    w: Any = 0.0
    m: Any = 0.0
    v: Any = tau**2
    for delta in deltas:
        m = beta_1 * m + (1 - beta_1) * delta
        square = delta * delta
        if name == "fedadagrad":
            v = v + square
        elif name == "fedadam":
            v = beta_2 * v + (1 - beta_2) * square
        else:
            v = v - (1 - beta_2) * square * np.sign(v - square)
        w = w + eta * m / (np.sqrt(v) + tau)
    return w


@pytest.mark.parametrize("name", ALL)
def test_equals_the_paper_s_algorithm(name: str) -> None:
    rng = np.random.default_rng(0)
    deltas = [rng.normal(size=4) * 2e-3 for _ in range(5)]
    settings: dict[str, Any] = {"server_learning_rate": 0.01, "beta_1": 0.8, "tau": 1e-3}
    if name != "fedadagrad":
        settings["beta_2"] = 0.95
    algorithm = make_algorithm(StrategyConfig.model_validate({"name": name, **settings}))
    w: Arrays = {"w": np.zeros(4)}
    for number, delta in enumerate(deltas, 1):
        middle = np.asarray(w["w"], np.float64) + delta
        sites = [Update({"w": middle + 1}, 1.0, "a"), Update({"w": middle - 1 / 3}, 3.0, "b")]
        w = algorithm.aggregate(Round(number, 2), w, sites)
    np.testing.assert_allclose(
        np.asarray(w["w"], np.float64), paper(name, deltas, 0.01, 0.8, 0.95, 1e-3), rtol=1e-9
    )


@pytest.mark.usefixtures("flower_task")
@pytest.mark.parametrize(("name", "flower"), [("fedyogi", "FedYogi"), ("fedadagrad", "FedAdagrad")])
def test_equals_flower_s_but_for_where_the_second_moment_begins(name: str, flower: str) -> None:
    """Flower begins at v = 0, the paper at tau^2: with tau tiny it makes no difference."""
    tiny = {"tau": 1e-9}
    ours = Halves({"name": name, "server_learning_rate": 0.05, **tiny}, HOSPITALS).run(6)
    theirs = Halves({"name": f"flower.{flower}", "eta": 0.05, **tiny}, HOSPITALS).run(6)
    np.testing.assert_allclose(ours.point, theirs.point, rtol=1e-6)


@pytest.mark.usefixtures("flower_task")
def test_flower_s_fedadam_is_ours_with_a_corrected_learning_rate() -> None:
    """Flower multiplies eta by sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)); the paper does not."""
    ours, theirs = (
        Halves({"name": name, key: 0.05, "tau": 1e-9}, HOSPITALS)
        for name, key in (("fedadam", "server_learning_rate"), ("flower.FedAdam", "eta"))
    )
    factor = np.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    np.testing.assert_allclose(theirs.run(1).point, factor * ours.run(1).point, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_under_the_defaults_no_weight_moves_farther_than_local_training_would_move_it(name: str) -> None:
    """Changes of the size AdamW makes at 5e-4, and ones far larger: a round moves less than 1e-2."""
    rng = np.random.default_rng(0)
    algorithm = make_algorithm(StrategyConfig(name=name))
    w = np.zeros(100, np.float32)
    for number in range(1, 21):
        delta = (rng.normal(size=100) * 2e-3 * 10 ** rng.uniform(-2, 2)).astype(np.float32)
        after = algorithm.aggregate(Round(number, 1), {"w": w}, [Update({"w": w + delta}, 1.0)])["w"]
        assert after.dtype == np.float32
        assert np.abs(np.asarray(after, np.float32) - w).max() < 1e-2
        w = np.asarray(after, np.float32)
    assert np.abs(w).max() > 1e-3  # and yet it moves


@pytest.mark.parametrize("name", ALL)
def test_where_every_site_agrees_the_model_arrives(name: str) -> None:
    hospitals = [Hospital("a", [0.3, -0.2], stays=5), Hospital("b", [0.3, -0.2], [0.5, 2.0])]
    made = Halves({"name": name, "server_learning_rate": 0.02}, hospitals).run(150)
    np.testing.assert_allclose(made.point, [0.3, -0.2], atol=0.03)
