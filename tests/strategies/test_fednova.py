"""FedNova: its fixed point in closed form, which FedAvg misses; FedAvg with equal steps."""

from __future__ import annotations

import numpy as np

from tests.strategies.halves import Halves, Hospital


def uneven(steps: tuple[int, int]) -> list[Hospital]:
    return [Hospital("a", [1.0], stays=30, steps=steps[0]), Hospital("b", [-1.0], stays=10, steps=steps[1])]


def fixed_point(rate: float, *, normalised: bool) -> float:
    """Where sum_i p_i c_i (o_i - w) = 0, c_i = 1 - (1 - rate)^tau_i, divided by tau_i under FedNova."""
    parts, optima, steps = np.array([0.75, 0.25]), np.array([1.0, -1.0]), np.array([2, 40])
    pull = parts * (1 - (1 - rate) ** steps) / (steps if normalised else 1)
    return float(np.sum(pull * optima) / np.sum(pull))


def test_equal_steps_are_fedavg() -> None:
    plain = Halves({"name": "fedavg"}, uneven((4, 4))).run(5)
    nova = Halves({"name": "fednova"}, uneven((4, 4))).run(5)
    np.testing.assert_allclose(nova.point, plain.point, rtol=1e-13)


def test_ends_where_the_closed_form_says() -> None:
    rate = 0.01
    nova = Halves({"name": "fednova"}, uneven((2, 40)), rate=rate).run(800)
    plain = Halves({"name": "fedavg"}, uneven((2, 40)), rate=rate).run(800)
    np.testing.assert_allclose(nova.point, fixed_point(rate, normalised=True), rtol=1e-6)
    np.testing.assert_allclose(plain.point, fixed_point(rate, normalised=False), rtol=1e-6)


def test_the_study_s_weights_decide_not_the_steps() -> None:
    """The optimum of 3/4 F_a + 1/4 F_b is 0.5; b takes twenty times the steps of a."""
    rate = 5e-4
    nova = Halves({"name": "fednova"}, uneven((2, 40)), rate=rate).run(1600)
    plain = Halves({"name": "fedavg"}, uneven((2, 40)), rate=rate).run(1600)
    assert abs(float(nova.point[0]) - 0.5) < 0.01
    assert float(plain.point[0]) < -0.5
