"""Batches: nothing lost, nothing doubled, padding inert."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.data.batching import TripletBatch, collate, evaluation_batches, length_buckets, training_batches
from hymate.data.store import TripletStore, prepare_store
from tests.hymate.data.shown import all_shown, mixed_store, recorded, rows_of, same
from tests.hymate.data.small import TASK, random_store, vocabulary, windows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TripletStore:
    return mixed_store(tmp_path_factory.mktemp("data") / "store")


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
