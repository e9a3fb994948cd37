"""FedAvg against numpy, and the fixed points it must have."""

from __future__ import annotations

import numpy as np
import pytest

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.base import Update
from strategies.fedavg import weighted_mean
from strategies.registry import make_algorithm


def update(seed: int, weight: float) -> Update:
    rng = np.random.default_rng(seed)
    return Update(
        {"a": rng.normal(size=(3, 4)).astype(np.float32), "b": rng.normal(size=5).astype(np.float32)}, weight
    )


def test_equals_numpy_average() -> None:
    updates = [update(0, 10), update(1, 30), update(2, 1)]
    mean = weighted_mean(updates)
    for name in ("a", "b"):
        oracle = np.average(
            np.stack([u.arrays[name].astype(np.float64) for u in updates]), axis=0, weights=[10, 30, 1]
        )
        assert mean[name].dtype == np.float32
        np.testing.assert_allclose(mean[name], oracle, rtol=1e-6)


def test_one_site_comes_back_bit_for_bit() -> None:
    alone = update(3, 17)
    for name, array in weighted_mean([alone]).items():
        assert array.tobytes() == alone.arrays[name].tobytes()


def test_the_same_weights_everywhere_stay() -> None:
    same = update(4, 1)
    mean = weighted_mean([Update(same.arrays, weight) for weight in (1, 2, 5)])
    np.testing.assert_allclose(mean["a"], same.arrays["a"], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("fedavgg", {}, "did you mean 'fedavg'"),
        ("zzz", {}, "known: afl, .*fedavg, "),
        ("fedavg", {"mu": 1}, "key 'mu' does not exist"),
    ],
)
def test_unknown_names_and_keys_teach(name: str, settings: dict[str, int], words: str) -> None:
    with pytest.raises(InputFault, match=words):
        make_algorithm(StrategyConfig(name=name, **settings))
