"""From a store's flat arrays to padded batches, without a Python step per token.

Batches of similar length cost little padding (`length_buckets`). What an epoch shows of its stays is
a `View`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.data.store import TripletStore


Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

POOL = 20  # batches whose stays are sorted by length together: little padding, still well mixed
CHUNK = 1024  # stays drawn for at once: bounds memory, does not change the draws


@dataclass(frozen=True)
class TripletBatch:
    """Observations of B stays, each sorted by time and right-padded to the longest, L.

    Padding never changes a result: a stay's output is the same alone or in any batch.

    | field    | shape  | dtype   | unit, meaning                                          | pad   |
    |----------|--------|---------|--------------------------------------------------------|-------|
    | time     | (B, L) | float32 | hours since the window's start, ascending              | 0.0   |
    | code     | (B, L) | int64   | vocabulary index, 1..V                                 | 0     |
    | value    | (B, L) | float32 | z-score of the measured value under the vocabulary     | 0.0   |
    | mask     | (B, L) | bool    | True where an observation is                           | False |
    | static   | (B, S) | float32 | demographics, `Vocabulary.static_names` gives the order| -     |
    | label    | (B,)   | float32 | 0.0 or 1.0; NaN where the stay has no label            | -     |
    | row      | (B,)   | int64   | row of the stay in its store                           | -     |
    """

    time: torch.Tensor
    code: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor
    static: torch.Tensor
    label: torch.Tensor
    row: torch.Tensor


def collate(store: TripletStore, rows: Ints, keep: Sequence[Bools] | None = None) -> TripletBatch:
    """The stays in `rows`, in that order, padded to the longest (and to at least 1).

    `keep` has one mask a stay, over its observations: those that are False are left out, no gap remains.
    """
    seen = observations(store, rows)
    if keep is not None:
        seen = seen.where(np.concatenate(keep))
    return _pad(store, rows, seen)


def length_buckets(lengths: Ints, batch_size: int, rng: np.random.Generator | None) -> list[Ints]:
    """Positions 0..n-1 in batches of stays of similar length, each position once.

    Without `rng` (evaluation) all are sorted by length. With it they are shuffled into pools of about
    20 batches, sorted within their pool, and the batches come in random order.
    """
    count = len(lengths)
    if rng is None:
        order = np.argsort(lengths, kind="stable")
        return [order[i : i + batch_size] for i in range(0, count, batch_size)]
    shuffled = rng.permutation(count)
    batches = -(-count // batch_size)
    pools = max(1, round(batches / POOL))
    pool_size = max(1, -(-batches // pools)) * batch_size
    buckets = []
    for start in range(0, count, pool_size):
        pool = shuffled[start : start + pool_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        buckets += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [buckets[i] for i in rng.permutation(len(buckets))]


def training_batches(
    store: TripletStore,
    rows: Ints,
    batch_size: int,
    rng: np.random.Generator,
    variable_dropout: float,
    span_hours: float = 0.0,
) -> Iterator[TripletBatch]:
    """One epoch over `rows`; of each stay, every variable is hidden with probability `variable_dropout`,
    and what was observed in a span of `span_hours` that lies anywhere in the look-back."""
    view = without_variables(store, rows, store.lengths[rows], variable_dropout, rng)
    if span_hours:
        view = _without_span(store, view, span_hours, rng)
    for bucket in length_buckets(view.lengths, batch_size, rng):
        yield view.batch(store, bucket)


def evaluation_batches(store: TripletStore, rows: Ints, batch_size: int) -> Iterator[TripletBatch]:
    """Every stay in `rows` once, whole, by length; `TripletBatch.row` says which is which."""
    for bucket in length_buckets(store.lengths[rows], batch_size, None):
        yield collate(store, rows[bucket])


@dataclass(frozen=True)
class Observations:
    """Some observations of some stays: `at` is their place in the store's arrays, `stay` the position
    of their stay in the batch (ascending)."""

    stay: Ints
    at: Ints

    def where(self, mask: Bools) -> Observations:
        return Observations(self.stay[mask], self.at[mask])


def observations(
    store: TripletStore, rows: Ints, first: Ints | None = None, last: Ints | None = None
) -> Observations:
    """Observations first (default 0) to last (default all) of every stay."""
    begin = store.offset[rows]
    end = store.offset[rows + 1] if last is None else begin + last
    if first is not None:
        begin = begin + first
    return Observations(np.repeat(np.arange(len(rows)), end - begin), _ranges(begin, end - begin))


def _ranges(begin: Ints, count: Ints) -> Ints:
    """begin[0], begin[0] + 1, ... (count[0] numbers), then those from begin[1], and so on."""
    before = np.cumsum(count) - count
    numbers: Ints = np.arange(count.sum()) + np.repeat(begin - before, count)
    return numbers


def _pad(store: TripletStore, rows: Ints, seen: Observations) -> TripletBatch:
    count = np.bincount(seen.stay, minlength=len(rows))
    width = max(1, int(count.max(initial=0)))
    place = _ranges(np.arange(len(rows)) * width, count)

    def padded(kind: type[np.generic], values: npt.NDArray[np.generic] | bool) -> torch.Tensor:
        array = np.zeros(len(rows) * width, kind)
        array[place] = values
        return torch.from_numpy(array.reshape(len(rows), width))

    return TripletBatch(
        time=padded(np.float32, store.time[seen.at]),
        code=padded(np.int64, store.code[seen.at]),
        value=padded(np.float32, store.value[seen.at]),
        mask=padded(np.bool_, True),
        static=torch.from_numpy(store.static[rows]),
        label=torch.from_numpy(store.label[rows]),
        row=torch.from_numpy(rows.astype(np.int64)),
    )


@dataclass(frozen=True)
class View:
    """What one epoch shows of its stays: of each row the first `seen` observations, less hidden ones.

    `lengths` counts what is left: stays are put into batches by that. `visible` runs over the seen
    observations, stay after stay; None: nothing is hidden.
    """

    rows: Ints
    seen: Ints
    lengths: Ints
    visible: Bools | None = None

    def batch(self, store: TripletStore, bucket: Ints) -> TripletBatch:
        """The stays at the positions in `bucket`."""
        shown = observations(store, self.rows[bucket], last=self.seen[bucket])
        if self.visible is not None:
            begin = np.cumsum(self.seen) - self.seen
            shown = shown.where(self.visible[_ranges(begin[bucket], self.seen[bucket])])
        return _pad(store, self.rows[bucket], shown)


def without_variables(
    store: TripletStore, rows: Ints, seen: Ints, share: float, rng: np.random.Generator
) -> View:
    """Hide each variable of each stay with probability `share`, but never all of a stay."""
    if share == 0.0:
        return View(rows, seen, seen)
    visible, lengths = [], []
    for begin in range(0, len(rows), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        shown = observations(store, rows[chunk], last=seen[chunk])
        count = len(rows[chunk])
        draw = rng.random((count, store.header.codes + 1))[shown.stay, store.code[shown.at]]
        highest = np.zeros(count)
        np.maximum.at(highest, shown.stay, draw)
        visible.append((draw >= share) | (draw == highest[shown.stay]))
        lengths.append(np.bincount(shown.stay[visible[-1]], minlength=count))
    if not visible:
        return View(rows, seen, seen)
    return View(rows, seen, np.concatenate(lengths), np.concatenate(visible))


def _without_span(store: TripletStore, view: View, hours: float, rng: np.random.Generator) -> View:
    """Hide what was observed in [begin, begin + hours) too, begin uniform over the look-back less `hours`;
    a stay of which nothing would be left keeps what it has."""
    shown = observations(store, view.rows, last=view.seen)
    begin = rng.random(len(view.rows)) * max(0.0, store.task.lookback_hours - hours)
    since = store.time[shown.at] - begin[shown.stay]
    before = np.ones(len(since), np.bool_) if view.visible is None else view.visible
    after = before & ((since < 0.0) | (since >= hours))
    left = np.bincount(shown.stay[after], minlength=len(view.rows))
    visible = np.where((left > 0)[shown.stay], after, before)
    return View(view.rows, view.seen, np.bincount(shown.stay[visible], minlength=len(view.rows)), visible)
