"""Masked forecasting cuts where it says it cuts, and asks for what comes next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from hymate.config import PretrainConfig
from hymate.data import batching, forecasting
from hymate.data.batching import TripletBatch, training_batches
from hymate.data.forecasting import ForecastBatch, fixed_forecast_draws, forecast_batches
from hymate.data.store import TripletStore, prepare_store
from tests.hymate.data.shown import mixed_store, recorded, rows_of, same, shown
from tests.hymate.data.small import NAN, TASK, vocabulary, windows

WHOLE = PretrainConfig(variable_dropout=0.0, batch_size=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TripletStore:
    return mixed_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def charted(tmp_path_factory: pytest.TempPathFactory) -> TripletStore:
    """One stay that can be cut after 12:00, 12:01 or 20:00, and two that cannot."""
    minute = 1 / 60
    made = windows(
        [
            [
                (11.0, "HR", 1.0),
                (12.0, "HR", 2.0),
                (12.0, "pH", 3.0),
                (12 + minute, "HR", 4.0),
                (14.0, "HR", 5.0),  # the last instant of the forecast from 12:00
                (14.0, "HR", 6.0),
                (14 + minute, "pH", 7.0),  # the last instant of the forecast from 12:01
                (14 + 2 * minute, "K", 8.0),
                (14 + 2 * minute, "ventilated", NAN),
            ],
            [(10.0, "HR", 1.0), (11.0, "HR", 1.0), (40.0, "HR", 1.0)],
            [],
            [(40.0, "HR", 1.0), (41.0, "ventilated", NAN), (41.0, "pH", -1.0)],
        ]
    )
    path = tmp_path_factory.mktemp("data") / "charted"
    return prepare_store(
        path, made, vocabulary("HR", "K", "pH", "ventilated", numberless=["ventilated"]), TASK
    )


def targets(batch: ForecastBatch) -> dict[int, dict[int, float]]:
    assert not batch.target[~batch.target_mask].any()
    return {
        row: {
            int(code): float(batch.target[i, code]) for code in torch.nonzero(batch.target_mask[i]).flatten()
        }
        for i, row in enumerate(batch.input.row.tolist())
    }


def test_forecast_cuts_by_hand(charted: TripletStore) -> None:
    HR, K, PH = 1, 2, 3
    found = {}
    for seed in range(40):
        (batch,) = forecast_batches(charted, rows_of(charted), WHOLE, np.random.default_rng(seed))
        assert batch.target.shape == (2, 5)
        seen, wanted = shown(batch.input), targets(batch)
        assert seen.keys() == {0, 3}, "the others have no time from 12 hours on before their last"
        found[len(seen[0])] = wanted[0]
        assert (len(seen[3]), wanted[3]) == (1, {PH: -1.0})
    assert found == {
        3: {HR: 4.0},
        4: {HR: 5.0, PH: 7.0},
        6: {PH: 7.0, K: 8.0},
        7: {K: 8.0},
    }


def expected_cut(store: TripletStore, row: int, seen: int, config: PretrainConfig) -> dict[int, float]:
    """The target of a stay cut after `seen` observations, one observation at a time."""
    everything = recorded(store, row)
    t1 = round(everything[seen - 1][0] * 60)  # charted to the minute: compare whole minutes
    wanted: dict[int, float] = {}
    for hours, code, value in everything:
        if t1 < round(hours * 60) <= t1 + config.forecast_hours * 60:
            wanted.setdefault(code, value)
    return wanted


def test_forecasts_equal_a_plain_loop(store: TripletStore) -> None:
    able = {
        row
        for row in rows_of(store).tolist()
        if any(12.0 <= time < recorded(store, row)[-1][0] for time, _, _ in recorded(store, row))
    }
    config = PretrainConfig(variable_dropout=0.0, batch_size=8, forecast_hours=3.0)
    for seed in range(5):
        visited: set[int] = set()
        for batch in forecast_batches(store, rows_of(store), config, np.random.default_rng(seed)):
            seen, wanted = shown(batch.input), targets(batch)
            for row, triplets in seen.items():
                everything = recorded(store, row)
                t1 = triplets[-1][0]
                assert 12.0 <= t1 < everything[-1][0]
                assert triplets == [triplet for triplet in everything if triplet[0] <= t1]
                assert wanted[row] == expected_cut(store, row, len(triplets), config)
            visited |= seen.keys()
        assert visited == able


def test_draws_do_not_depend_on_how_many_are_made_at_once(
    store: TripletStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PretrainConfig(variable_dropout=0.3, batch_size=8)
    whole = list(forecast_batches(store, rows_of(store), config, np.random.default_rng(0)))
    for module in (batching, forecasting):
        monkeypatch.setattr(module, "CHUNK", 7)
    parts = list(forecast_batches(store, rows_of(store), config, np.random.default_rng(0)))
    assert all(same(a, b) for a, b in zip(whole, parts, strict=True))


def test_t1_is_uniform_over_distinct_times(tmp_path: Path) -> None:
    often: list[tuple[float, str, float]] = [(13.0, "HR", 1.0)] * 6
    stay = [*often, (14.0, "HR", 1.0), (15.0, "HR", 1.0), (16.0, "HR", 1.0), (16.0, "pH", 1.0)]
    store = prepare_store(tmp_path / "store", windows([stay] * 6000), vocabulary("HR", "pH"), TASK)
    batches = forecast_batches(store, rows_of(store), WHOLE, np.random.default_rng(0))
    count = Counter(length for batch in batches for length in batch.input.mask.sum(1).tolist())
    assert count.keys() == {6, 7, 8}
    assert all(abs(n - 2000) < 4 * (6000 * 2 / 9) ** 0.5 for n in count.values()), count


def test_dropout_leaves_targets_alone(store: TripletStore) -> None:
    config = PretrainConfig(variable_dropout=0.9, batch_size=64)
    (hidden,) = forecast_batches(store, rows_of(store), config, np.random.default_rng(3))
    (whole,) = forecast_batches(
        store, rows_of(store), config.model_copy(update={"variable_dropout": 0.0}), np.random.default_rng(3)
    )
    assert targets(hidden) == targets(whole)
    everything = shown(whole.input)
    for row, seen in shown(hidden.input).items():
        left = {code for _, code, _ in seen}
        assert seen
        assert seen == [triplet for triplet in everything[row] if triplet[1] in left]
    assert hidden.input.mask.sum() < 0.5 * whole.input.mask.sum()


def drawn(batches: Iterable[ForecastBatch]) -> Counter[tuple[int, int, tuple[tuple[int, float], ...]]]:
    return Counter(
        (row, len(seen), tuple(targets(batch)[row].items()))
        for whole in batches
        for batch in split(whole)
        for row, seen in shown(batch.input).items()
    )


def split(batch: ForecastBatch) -> list[ForecastBatch]:
    """Every stay of a batch in a batch of its own: fixed draws show one stay several times."""
    return [
        ForecastBatch(
            input=TripletBatch(**{name: value[i : i + 1] for name, value in vars(batch.input).items()}),
            target=batch.target[i : i + 1],
            target_mask=batch.target_mask[i : i + 1],
        )
        for i in range(len(batch.target))
    ]


def test_fixed_draws_depend_on_store_seed_and_row_only(store: TripletStore) -> None:
    rows = rows_of(store)
    first = drawn(fixed_forecast_draws(store, rows, PretrainConfig(batch_size=5), draws=3, seed=1))
    again = drawn(fixed_forecast_draws(store, rows, PretrainConfig(batch_size=32), draws=3, seed=1))
    assert first == again
    assert first != drawn(fixed_forecast_draws(store, rows, PretrainConfig(), draws=3, seed=2))
    stays = Counter[int]()
    for (row, seen, target), count in first.items():
        stays[row] += count
        assert dict(target) == expected_cut(store, row, seen, PretrainConfig())
    assert set(stays.values()) == {3}
    some = rows[::7][::-1]
    part = drawn(fixed_forecast_draws(store, some, PretrainConfig(), draws=3, seed=1))
    assert part == Counter({key: count for key, count in first.items() if key[0] in some})


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_no_stay_gives_no_batch(charted: TripletStore, share: float) -> None:
    config = PretrainConfig(variable_dropout=share)
    nobody, never_cut = np.array([], np.int64), np.array([1, 2])
    assert list(training_batches(charted, nobody, 8, np.random.default_rng(0), share)) == []
    for rows in (nobody, never_cut):
        assert list(forecast_batches(charted, rows, config, np.random.default_rng(0))) == []
        assert list(fixed_forecast_draws(charted, rows, config, draws=3, seed=0)) == []
