"""What batches show of a store, beside what the store holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from hymate.data.batching import TripletBatch
from hymate.data.store import TripletStore
from tests.hymate.data.small import random_store

Triplets = list[tuple[float, int, float]]


def mixed_store(path: Path) -> TripletStore:
    """60 stays of 0 to 90 observations, 15 codes, charted to the minute."""
    rng = np.random.default_rng(5)
    lengths = [0, 1, 2, 90, *rng.integers(0, 90, 56)]
    return random_store(path, rng, lengths, 15)


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
