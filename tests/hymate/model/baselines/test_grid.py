"""The table: last value of an interval, filled values and times since, against a case worked by hand."""

from __future__ import annotations

import pytest
import torch

from hymate.model.baselines.grid import Grid, grid_features, grid_of, intervals
from tests.hymate.model.batches import STATIC, Stay, batch_of

#      t (hours)    code  value      interval of 2 h
HAND = [
    (0.5, 1, 1.0),  # 0
    (1.9, 1, 2.0),  # 0: later in the same interval, so it counts
    (2.0, 2, 3.0),  # 1: an interval holds its beginning
    (6.5, 1, 4.0),  # 3
    (8.0, 2, 5.0),  # the very end of the window: the last interval
]


def stay_of(rows: list[tuple[float, int, float]]) -> Stay:
    hours, code, value = zip(*rows, strict=True) if rows else ((), (), ())
    return (
        torch.tensor(hours),
        torch.tensor(code, dtype=torch.int64),
        torch.tensor(value),
        torch.zeros(STATIC),
    )


@pytest.fixture
def grid() -> Grid:
    return grid_of(batch_of([stay_of(HAND), stay_of([(5.0, 2, 7.0)])]), codes=3, steps=4, bin_hours=2.0)


def test_the_last_value_of_an_interval_counts(grid: Grid) -> None:
    assert grid.value[0].tolist() == [[2, 0, 0], [0, 3, 0], [0, 0, 0], [4, 5, 0]]
    assert grid.seen[0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]]
    assert grid.value[1].tolist() == [[0, 0, 0], [0, 0, 0], [0, 7, 0], [0, 0, 0]]


def test_equal_times_count_in_the_order_of_the_stay() -> None:
    batch = batch_of([stay_of([(1.0, 1, 5.0), (1.0, 1, 3.0), (1.0, 1, 4.0)])])
    assert grid_of(batch, codes=1, steps=1, bin_hours=2.0).value.item() == 4.0


def test_values_are_filled_forward_from_the_mean(grid: Grid) -> None:
    assert grid.filled[0].tolist() == [[2, 0, 0], [2, 3, 0], [2, 3, 0], [4, 5, 0]]
    assert grid.filled[1, :, 1].tolist() == [0, 0, 7, 7]


def test_times_since_the_last_observation(grid: Grid) -> None:
    """Delta of GRU-D: an observation resets the clock for the next step, not for its own."""
    assert grid.since[0].tolist() == [[0, 0, 0], [2, 2, 2], [4, 2, 4], [6, 4, 6]]
    assert grid.since[1, :, 1].tolist() == [0, 2, 4, 2]


def test_features_are_values_masks_and_times_as_share_of_the_window(grid: Grid) -> None:
    features = grid_features(grid, lookback_hours=8.0)
    assert features.shape == (2, 4, 9)
    assert features[0, 3].tolist() == [4, 5, 0, 1, 1, 0, 6 / 8, 4 / 8, 6 / 8]


@pytest.mark.parametrize(
    ("lookback", "length", "expected"), [(48.0, 1.0, 48), (48.0, 2.0, 24), (10.0, 4.0, 3), (4.8, 0.1, 48)]
)
def test_number_of_intervals(lookback: float, length: float, expected: int) -> None:
    assert intervals(lookback, length) == expected
