"""Hidden spans of time, and several forecasting windows of a stay."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hymate.config import PretrainConfig
from hymate.data.batching import training_batches
from hymate.data.forecasting import forecast_batches, forecast_stays
from hymate.data.store import TripletStore
from tests.hymate.train.planted import planted_store, store_of


def hourly() -> TripletStore:
    """Twenty stays measured every half hour for 48 h, and twenty measured once."""
    times = [np.arange(0.25, 48.0, 0.5)] * 20 + [np.array([24.0])] * 20
    return store_of(
        times,
        [np.ones(len(time), np.int64) for time in times],
        [np.zeros(len(time)) for time in times],
        label=np.zeros(40, np.float32),
        split=np.zeros(40, np.int8),
        static=np.zeros((40, 2)),
    )


def test_one_span_of_each_stay_is_hidden_and_a_stay_is_never_emptied() -> None:
    store, begins = hourly(), set()
    for number in range(5):
        rng = np.random.default_rng(number)
        for batch in training_batches(store, np.arange(40), 4, rng, 0.0, span_hours=6.0):
            for stay, row in enumerate(batch.row.tolist()):
                seen = batch.time[stay][batch.mask[stay]].numpy()
                if row >= 20:
                    assert seen.tolist() == [24.0]
                    continue
                missing = np.setdiff1d(np.arange(0.25, 48.0, 0.5).astype(np.float32), seen)
                assert len(missing) == 12
                assert missing[-1] - missing[0] == 5.5
                begins.add(float(missing[0]))
    assert min(begins) < 5
    assert max(begins) > 37
    assert len(begins) > 30


def test_without_a_span_nothing_is_drawn_for_it() -> None:
    store, rng, other = planted_store(), np.random.default_rng(0), np.random.default_rng(0)
    rows = np.arange(len(store))
    for a, b in zip(
        training_batches(store, rows, 8, rng, 0.3),
        training_batches(store, rows, 8, other, 0.3, 0.0),
        strict=True,
    ):
        assert a.row.tolist() == b.row.tolist()
    assert rng.random() == other.random()


@pytest.mark.parametrize("windows", [1, 3])
def test_every_stay_is_cut_as_often_as_asked(windows: int) -> None:
    store = hourly()
    config = PretrainConfig(windows_per_stay=windows, batch_size=8, variable_dropout=0.0)
    batches = list(forecast_batches(store, np.arange(40), config, np.random.default_rng(0)))
    rows = Counter(row for batch in batches for row in batch.input.row.tolist())
    assert rows == dict.fromkeys(range(20), windows)
    assert forecast_stays(store, np.arange(40), config) == 20
    assert len(batches) == -(-20 * windows // 8)
    cuts = [int(n) for batch in batches for n in batch.input.mask.sum(dim=1)]
    assert len(set(cuts)) > 10  # each at a time of its own
