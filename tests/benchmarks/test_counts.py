"""What the benchmarks count and fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.context import measure_one, slope
from benchmarks.stays import LONGEST, MEDIAN, store_of
from benchmarks.train_step import forward_multiply_adds, measure
from hymate.config import ModelConfig
from hymate.model.hymate import build_model


def test_multiply_adds_by_hand() -> None:
    config = ModelConfig(
        d_model=4, mamba_blocks=1, d_state=3, d_conv=2, expand=2, attention_heads=2, d_static=5
    )
    model = build_model(config, codes=9, static_width=7, time_scale_hours=48.0, seed=0)
    embedding = 2 * (1 * 2 + 2 * 4)
    mamba = 4 * 16 + 8 * (1 + 2 * 3) + 1 * 8 + 8 * 4 + 8 * (3 * 3 + 2)  # projections, scan, convolution
    attention = 4 * 12 + 4 * 4 + 2 * 4 * 8
    fusion = 4 * 4 + 4 + 4
    a_stay = 7 * 10 + 10 * 5 + 9
    pairs = 2 * 4 * (10**2 + 3**2)
    expected = 13 * (embedding + mamba + attention + fusion) + 2 * a_stay + pairs
    assert forward_multiply_adds(model, np.array([10, 3])) == expected
    local = model.config.model_copy(update={"attention_window": 2})
    model.config = local
    assert forward_multiply_adds(model, np.array([10, 3])) == expected - pairs + 2 * 4 * (10 * 5 + 3 * 3)


def test_slope_of_a_power() -> None:
    assert slope([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0]) == pytest.approx(2.0)


def test_random_stays_are_as_long_as_physionets(tmp_path: Path) -> None:
    store, vocabulary = store_of(None, 300, tmp_path)
    assert np.median(store.lengths) == pytest.approx(MEDIAN, rel=0.1)
    assert store.lengths.max() <= LONGEST
    result = measure(store, vocabulary.size, vocabulary.static_width, stays=32, seconds=0.0)
    assert 0 < float(str(result["padding_waste"])) <= 0.1
    assert float(str(result["utilisation"])) > 0


@pytest.mark.parametrize("part", ["mamba", "window", "full"])
def test_each_part_runs(part: str) -> None:
    found = measure_one(part, 300, window=20, seconds=0.0)
    assert found["ms"] > 0
    assert found["peak_mib"] > found["step_mib"]
