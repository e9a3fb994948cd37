"""q-FedAvg: FedAvg at q = 0, Algorithm 2 by hand, its fixed point, and steps that neither stop nor burst."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hymate.strategy_config import StrategyConfig
from strategies.base import Round, Update
from strategies.qfedavg import fair_shares, smoothness
from strategies.registry import make_algorithm
from tests.strategies.halves import Halves, Hospital

UNEVEN = [Hospital("a", [0.0], stays=90, steps=2), Hospital("b", [1.0], stays=10, steps=2)]
POSITIVE = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3).map(np.array)


def test_q_0_is_fedavg_with_the_study_s_weights() -> None:
    for lipschitz in ({}, {"lipschitz": 7.0}):
        plain = Halves({"name": "fedavg"}, UNEVEN).run(5)
        fair = Halves({"name": "qfedavg", "q": 0, **lipschitz}, UNEVEN).run(5)
        np.testing.assert_allclose(fair.point, plain.point, rtol=1e-13)


def test_one_round_of_algorithm_2_by_hand() -> None:
    """p = (3/4, 1/4), F = (2, 8), x - w = (1, 3), q = 1, L = 5, written as in the paper."""
    updates = [
        Update({"w": np.array([1.0])}, 3.0, "a", facts={"loss": 2.0}),
        Update({"w": np.array([3.0])}, 1.0, "b", facts={"loss": 8.0}),
    ]
    top = 0.75 * 2 * 5 * 1 + 0.25 * 8 * 5 * 3
    bottom = 0.75 * (1 * 25 * 1 + 5 * 2) + 0.25 * (1 * 25 * 9 + 5 * 8)
    algorithm = make_algorithm(StrategyConfig.model_validate({"name": "qfedavg", "q": 1, "lipschitz": 5}))
    after = algorithm.aggregate(Round(1, 2), {"w": np.zeros(1)}, updates)
    assert after["w"] == pytest.approx([top / bottom])


@pytest.mark.usefixtures("flower_task")
def test_equals_flower_s_where_sites_count_alike() -> None:
    alike = [Hospital("a", [0.0, 2.0], steps=3), Hospital("b", [1.0, -1.0], [0.5, 2.0], steps=3)]
    ours = Halves({"name": "qfedavg", "q": 0.7, "lipschitz": 10.0}, alike).run(5)
    theirs = Halves({"name": "flower.QFedAvg", "q": 0.7, "client_learning_rate": 0.1}, alike).run(5)
    np.testing.assert_allclose(ours.point, theirs.point, rtol=1e-7)


@pytest.mark.parametrize("q", [1.0, 3.0])
def test_ends_at_the_optimum_of_the_fair_objective(q: float) -> None:
    """sum_k p_k F_k^(q+1): with F = w^2/2 and (1-w)^2/2, w/(1-w) = (p_b/p_a)^(1/(2q+1))."""
    fair = Halves({"name": "qfedavg", "q": q}, UNEVEN).run(600)
    ratio = (10 / 90) ** (1 / (2 * q + 1))
    np.testing.assert_allclose(fair.point, ratio / (1 + ratio), rtol=1e-4)


def test_the_worst_site_gains() -> None:
    def worst(q: float) -> float:
        made = Halves({"name": "qfedavg", "q": q}, UNEVEN).run(200)
        return max(0.5 * float(made.point[0]) ** 2, 0.5 * (1 - float(made.point[0])) ** 2)

    assert worst(5.0) < worst(1.0) < worst(0.0) / 1.5


@given(POSITIVE, POSITIVE, POSITIVE, st.floats(0, 20))
def test_the_step_is_never_longer_than_the_mean_and_does_not_vanish(
    weights: np.ndarray, losses: np.ndarray, lengths: np.ndarray, q: float
) -> None:
    """Multipliers are positive and sum to at most 1; to 1 / (1 + 2 q) or more where losses are alike."""
    parts = weights / weights.sum()
    given_out = fair_shares(parts, losses, lengths, q, smoothness(parts, losses, lengths))
    assert np.isfinite(given_out).all()
    assert (given_out >= 0).all()
    assert given_out.sum() <= 1 + 1e-12
    alike = np.full(3, losses[0])
    assert fair_shares(parts, alike, lengths, q, smoothness(parts, alike, lengths)).sum() >= 0.999 / (
        1 + 2 * q
    )


def test_weights_of_a_real_model_s_size_move_under_the_default() -> None:
    """A hundred thousand weights moved by 2e-3 each: with L = 1 / 5e-4 the model stands still."""
    rng = np.random.default_rng(0)
    sites = [
        Update({"w": rng.normal(0.002, 0.0005, 100_000)}, 1.0, site, facts={"loss": loss})
        for site, loss in (("a", 0.5), ("b", 0.8))
    ]

    def moved(**settings: float) -> float:
        algorithm = make_algorithm(StrategyConfig.model_validate({"name": "qfedavg", **settings}))
        return float(algorithm.aggregate(Round(1, 2), {"w": np.zeros(100_000)}, sites)["w"].mean())

    assert 0.002 / 3.1 < moved() < 0.002
    assert moved(lipschitz=1 / 5e-4) < 0.002 / 100


def test_a_round_in_which_nothing_happened_changes_nothing() -> None:
    still = [Update({"w": np.ones(2)}, 1.0, "a", facts={"loss": 0.0})]
    algorithm = make_algorithm(StrategyConfig.model_validate({"name": "qfedavg", "q": 0.5}))
    assert algorithm.aggregate(Round(1, 1), {"w": np.ones(2)}, still)["w"].tolist() == [1.0, 1.0]
