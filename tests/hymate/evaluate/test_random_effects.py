"""The summary over sites, against published figures and a plain search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hymate.evaluate.random_effects import random_effects, restricted_maximum_likelihood

# Thirteen trials of BCG (Colditz et al. 1994; metafor's dat.bcg): cases, others; treated, control.
BCG = [
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232),
    (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
]  # fmt: skip


def bcg() -> tuple[np.ndarray, np.ndarray]:
    """Log relative risks and their variances."""
    values, variances = [], []
    for a, not_a, c, not_c in BCG:
        n1, n2 = a + not_a, c + not_c
        values.append(math.log((a / n1) / (c / n2)))
        variances.append(1 / a - 1 / n1 + 1 / c - 1 / n2)
    return np.array(values), np.array(variances)


def test_the_published_example() -> None:
    values, variances = bcg()
    found = random_effects(values, variances)
    assert found is not None
    # metafor's rma(yi, vi, data = dat.bcg): estimate -0.7145, tau^2 0.3132, I^2 92.22 %.
    assert found.mean == pytest.approx(-0.7145, abs=5e-5)
    assert found.tau2 == pytest.approx(0.3132, abs=5e-5)
    assert found.i2 == pytest.approx(0.9222, abs=5e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), sites=st.integers(2, 12), tau=st.floats(0.0, 1.0))
@example(seed=0, sites=9, tau=0.25)  # there is a lower maximum at 0
def test_tau_is_where_the_restricted_likelihood_is_highest(seed: int, sites: int, tau: float) -> None:
    rng = np.random.default_rng(seed)
    v = rng.uniform(0.02, 0.5, sites)
    y = rng.normal(0.0, np.sqrt(v + tau**2))
    tau2 = restricted_maximum_likelihood(y, v)

    def likelihood(t: float) -> float:
        w = 1 / (v + t)
        mean = w @ y / w.sum()
        return float(-0.5 * (np.log(v + t).sum() + np.log(w.sum()) + w @ np.square(y - mean)))

    best = max(likelihood(t) for t in [*np.linspace(0, 6, 1201), tau2 * 0.99, tau2 * 1.01])
    assert likelihood(tau2) >= best - 1e-7


def test_the_prediction_interval_covers_a_new_site() -> None:
    rng = np.random.default_rng(5)
    covered = inside = 0
    for _ in range(300):
        v = rng.uniform(0.05, 0.15, 12)
        y = rng.normal(1.0, 0.4, 12) + rng.normal(0, np.sqrt(v))
        found = random_effects(y, v)
        assert found is not None
        assert found.prediction is not None
        covered += found.interval[0] <= 1.0 <= found.interval[1]
        inside += found.prediction[0] <= rng.normal(1.0, 0.4) <= found.prediction[1]
    assert covered >= 0.92 * 300
    assert inside >= 0.90 * 300


def test_few_sites() -> None:
    assert random_effects([0.3], [0.1]) is None
    two = random_effects([0.3, 0.4], [0.1, 0.1])
    assert two is not None
    assert two.prediction is None, "two sites say nothing of a third"
    assert two.tau2 == 0.0
