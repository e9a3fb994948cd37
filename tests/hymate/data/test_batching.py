"""Batches: nothing lost, nothing doubled, padding inert; forecasting cuts where it says it cuts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.config import PretrainConfig
from hymate.data import batching
from hymate.data.batching import TripletBatch, collate, evaluation_batches, length_buckets, training_batches
from hymate.data.forecasting import ForecastBatch, fixed_forecast_draws, forecast_batches
from hymate.data.store import TripletStore, prepare_store
from tests.hymate.data.small import NAN, TASK, random_store, vocabulary, windows

WHOLE = PretrainConfig(variable_dropout=0.0, batch_size=8)
Triplets = list[tuple[float, int, float]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TripletStore:
    """60 stays of 0 to 90 observations, 15 codes, charted to the minute."""
    rng = np.random.default_rng(5)
    lengths = [0, 1, 2, 90, *rng.integers(0, 90, 56)]
    return random_store(tmp_path_factory.mktemp("data") / "store", rng, lengths, 15)


def rows_of(store: TripletStore) -> np.ndarray:
    return np.arange(len(store))


def recorded(store: TripletStore, row: int) -> Triplets:
    inside = slice(store.offset[row], store.offset[row + 1])
    return list(
        zip(
            store.time[inside].tolist(),
            store.code[inside].tolist(),
            store.value[inside].tolist(),
            strict=True,
        )
    )


def shown(batch: TripletBatch) -> dict[int, Triplets]:
    """Row -> the triplets a model sees of it."""
    found = {}
    for i, row in enumerate(batch.row.tolist()):
        assert row not in found
        mask = batch.mask[i]
        found[row] = list(
            zip(
                batch.time[i][mask].tolist(),
                batch.code[i][mask].tolist(),
                batch.value[i][mask].tolist(),
                strict=True,
            )
        )
    return found


def all_shown(batches: Iterable[TripletBatch]) -> dict[int, Triplets]:
    found: dict[int, Triplets] = {}
    for batch in batches:
        part = shown(batch)
        assert not part.keys() & found.keys(), "a stay came twice"
        found |= part
    return found


def same(a: object, b: object) -> bool:
    """Bitwise equality of two batches, NaN labels included."""
    for name, left in vars(a).items():
        right = vars(b)[name]
        if isinstance(left, TripletBatch):
            if not same(left, right):
                return False
        elif left.dtype != right.dtype or not torch.equal(torch.nan_to_num(left), torch.nan_to_num(right)):
            return False
    return True


# Collation


def test_a_padded_batch_by_hand(tmp_path: Path) -> None:
    made = windows(
        [[(0.5, "a", 1.0)], [(1.0, "b", 2.0), (1.0, "a", 3.0), (2.5, "b", 4.0)], []], labels=[1.0, None, 0.0]
    )
    store = prepare_store(tmp_path / "store", made, vocabulary("a", "b"), TASK)
    batch = collate(store, np.array([1, 2, 0]))
    assert batch.time.tolist() == [[1.0, 1.0, 2.5], [0, 0, 0], [0.5, 0, 0]]
    assert batch.code.tolist() == [[2, 1, 2], [0, 0, 0], [1, 0, 0]]
    assert batch.value.tolist() == [[2.0, 3.0, 4.0], [0, 0, 0], [1.0, 0, 0]]
    assert batch.mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert batch.row.tolist() == [1, 2, 0]
    assert batch.static.shape == (3, 0)
    assert torch.isnan(batch.label[0])
    assert batch.label[1:].tolist() == [0.0, 1.0]
    kinds = [
        getattr(batch, name).dtype for name in ("time", "code", "value", "mask", "static", "label", "row")
    ]
    assert kinds == [
        torch.float32,
        torch.int64,
        torch.float32,
        torch.bool,
        torch.float32,
        torch.float32,
        torch.int64,
    ]

    part = collate(store, np.array([0, 1]), keep=[np.array([True]), np.array([True, False, True])])
    assert part.time.tolist() == [[0.5, 0.0], [1.0, 2.5]]
    assert part.code.tolist() == [[1, 0], [2, 2]]
    assert part.mask.tolist() == [[True, False], [True, True]]
    assert collate(store, np.array([2])).mask.tolist() == [[False]], "an empty stay alone has width 1"


def test_a_stay_is_the_same_in_any_batch(store: TripletStore) -> None:
    together = collate(store, rows_of(store))
    for row in rows_of(store):
        alone = collate(store, np.array([row]))
        length = max(1, int(store.lengths[row]))
        for name in ("time", "code", "value", "mask"):
            assert torch.equal(getattr(together, name)[row, :length], getattr(alone, name)[0])
            assert not getattr(together, name)[row, length:].any(), f"{name} is padded with something"
        assert torch.equal(together.static[row], alone.static[0])


def test_every_observation_comes_exactly_once(store: TripletStore) -> None:
    everything = {row: recorded(store, row) for row in rows_of(store).tolist()}
    assert sum(map(len, everything.values())) == len(store.time)
    assert all_shown(evaluation_batches(store, rows_of(store), 7)) == everything
    batches = training_batches(store, rows_of(store), 7, np.random.default_rng(0), variable_dropout=0.0)
    assert all_shown(batches) == everything
    some = np.array([9, 3, 50])
    assert all_shown(evaluation_batches(store, some, 2)) == {row: everything[row] for row in some.tolist()}
    assert list(evaluation_batches(store, np.array([], np.int64), 2)) == []


# Length buckets


@given(
    lengths=st.lists(st.integers(0, 1000), max_size=300),
    batch_size=st.integers(1, 40),
    seed=st.none() | st.integers(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_buckets_hold_every_position_once(lengths: list[int], batch_size: int, seed: int | None) -> None:
    rng = None if seed is None else np.random.default_rng(seed)
    buckets = length_buckets(np.array(lengths, np.int64), batch_size, rng)
    assert sorted(position for bucket in buckets for position in bucket) == list(range(len(lengths)))
    assert len(buckets) == -(-len(lengths) // batch_size)
    assert all(0 < len(bucket) <= batch_size for bucket in buckets)


def test_buckets_are_mixed_anew_but_repeat_with_the_generator() -> None:
    lengths = np.random.default_rng(0).integers(1, 900, 500)

    def draw(seed: int) -> list[list[int]]:
        return [bucket.tolist() for bucket in length_buckets(lengths, 16, np.random.default_rng(seed))]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert {frozenset(bucket) for bucket in draw(1)} != {frozenset(bucket) for bucket in draw(2)}
    one_pool = lengths[:160]
    mean = [one_pool[bucket].mean() for bucket in length_buckets(one_pool, 16, np.random.default_rng(1))]
    assert mean != sorted(mean), "batches come in random order"


def padding_waste(lengths: np.ndarray, buckets: Iterable[np.ndarray]) -> float:
    cells = sum(len(bucket) * int(lengths[bucket].max()) for bucket in buckets)
    return 1.0 - float(lengths.sum()) / cells


@pytest.mark.parametrize("count", [400, 700, 5600])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_padding_wastes_at_most_a_tenth(count: int, seed: int | None) -> None:
    rng = np.random.default_rng(count)
    lengths = np.clip(rng.lognormal(np.log(425), 0.35, count).astype(np.int64), 1, 880)
    buckets = length_buckets(lengths, 32, None if seed is None else np.random.default_rng(seed))
    assert padding_waste(lengths, buckets) <= 0.10
    in_order = [np.arange(i, min(i + 32, count)) for i in range(0, count, 32)]
    assert padding_waste(lengths, in_order) > 0.3, "this case would not need buckets"


# Variable dropout


def test_dropout_hides_whole_variables_at_its_rate(store: TripletStore) -> None:
    kept = total = 0
    for seed in range(20):
        batches = training_batches(
            store, rows_of(store), 16, np.random.default_rng(seed), variable_dropout=0.3
        )
        for row, seen in all_shown(batches).items():
            everything = recorded(store, row)
            left = {code for _, code, _ in seen}
            assert seen == [triplet for triplet in everything if triplet[1] in left]
            if len({code for _, code, _ in everything}) > 5:  # else the rule "never all" shows
                kept += len(left)
                total += len({code for _, code, _ in everything})
    assert total > 5000
    assert kept / total == pytest.approx(0.7, abs=0.02)


def test_padding_stays_small_when_variables_are_hidden(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(np.log(60), 0.35, 640).astype(np.int64), 1, 120)
    store = random_store(tmp_path / "store", rng, lengths.tolist(), 6)  # six variables: hiding one cuts deep
    cells = shown = 0
    for batch in training_batches(store, rows_of(store), 32, rng, variable_dropout=0.4):
        cells += batch.mask.numel()
        shown += int(batch.mask.sum())
    assert 1.0 - shown / cells <= 0.12


def test_dropout_never_hides_all_of_a_stay(store: TripletStore) -> None:
    batches = training_batches(store, rows_of(store), 16, np.random.default_rng(0), variable_dropout=0.999)
    for row, seen in all_shown(batches).items():
        assert bool(seen) == bool(store.lengths[row])


def test_training_repeats_with_the_generator(store: TripletStore) -> None:
    def epoch(seed: int) -> list[TripletBatch]:
        return list(
            training_batches(store, rows_of(store), 16, np.random.default_rng(seed), variable_dropout=0.3)
        )

    assert all(same(a, b) for a, b in zip(epoch(1), epoch(1), strict=True))
    assert not all(same(a, b) for a, b in zip(epoch(1), epoch(2), strict=True))


# Forecasting


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
    monkeypatch.setattr(batching, "CHUNK", 7)
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
