"""From a store's flat arrays to padded batches, without a Python step per token.

Batches of similar length cost little padding (`length_buckets`); masked forecasting cuts each stay at
a random time t1 and asks for what comes just after (STraTS, Tipirneni & Reddy 2022, section 3.4,
https://arxiv.org/abs/2107.14293).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.config import PretrainConfig
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


@dataclass(frozen=True)
class ForecastBatch:
    """Masked forecasting: a `TripletBatch` cut at each stay's t1, and what was measured just after.

    | field        | shape      | dtype   | meaning                                                      |
    |--------------|------------|---------|--------------------------------------------------------------|
    | input        |            |         | observations with time <= t1, whole variables dropped        |
    | target       | (B, V + 1) | float32 | z-score of each code's first value in (t1, t1 + forecast]; 0 |
    | target_mask  | (B, V + 1) | bool    | True where `target` was measured; column 0 never             |
    """

    input: TripletBatch
    target: torch.Tensor
    target_mask: torch.Tensor


def collate(store: TripletStore, rows: Ints, keep: Sequence[Bools] | None = None) -> TripletBatch:
    """The stays in `rows`, in that order, padded to the longest (and to at least 1).

    `keep` has one mask a stay, over its observations: those that are False are left out, no gap remains.
    """
    seen = _observations(store, rows)
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
    view = _view(store, rows, store.lengths[rows], variable_dropout, rng)
    if span_hours:
        view = _without_span(store, view, span_hours, rng)
    for bucket in length_buckets(view.lengths, batch_size, rng):
        yield view.batch(store, bucket)


def evaluation_batches(store: TripletStore, rows: Ints, batch_size: int) -> Iterator[TripletBatch]:
    """Every stay in `rows` once, whole, by length; `TripletBatch.row` says which is which."""
    for bucket in length_buckets(store.lengths[rows], batch_size, None):
        yield collate(store, rows[bucket])


def forecast_batches(
    store: TripletStore, rows: Ints, config: PretrainConfig, rng: np.random.Generator
) -> Iterator[ForecastBatch]:
    """One epoch of masked forecasting over those stays in `rows` that have a possible t1.

    t1 is uniform over the stay's distinct observation times at or after `config.min_input_hours`, the
    stay's last time excluded. The input is what was observed up to and including t1, with whole
    variables hidden; the target is not touched by that. `config.windows_per_stay` t1 are drawn of each.
    """
    rows = np.tile(rows, config.windows_per_stay)
    able, seen = _draw_inputs(store, rows, rng.random(len(rows)), config)
    view = _view(store, rows[able], seen, config.variable_dropout, rng)
    for bucket in length_buckets(view.lengths, config.batch_size, rng):
        yield _forecast(store, view, bucket, config)


def forecast_stays(store: TripletStore, rows: Ints, config: PretrainConfig) -> int:
    """How many of `rows` have a possible t1."""
    return len(forecast_rows(store, rows, config))


def forecast_rows(store: TripletStore, rows: Ints, config: PretrainConfig) -> Ints:
    """Those of `rows` that have a possible t1."""
    return rows[_draw_inputs(store, rows, np.zeros(len(rows)), config)[0]]


def fixed_forecast_draws(
    store: TripletStore, rows: Ints, config: PretrainConfig, draws: int, seed: int
) -> Iterator[ForecastBatch]:
    """`draws` cuts of each stay, no variable hidden: the same ones at every call, for validation.

    A stay's cuts depend on the store, `seed` and its row: not on the batch size or the other rows.
    """
    uniform = np.random.default_rng(seed).random((draws, len(store)))[:, rows].ravel()
    rows = np.tile(rows, draws)
    able, seen = _draw_inputs(store, rows, uniform, config)
    view = _View(rows[able], seen, seen)
    for bucket in length_buckets(view.lengths, config.batch_size, None):
        yield _forecast(store, view, bucket, config)


@dataclass(frozen=True)
class _Observations:
    """Some observations of some stays: `at` is their place in the store's arrays, `stay` the position
    of their stay in the batch (ascending)."""

    stay: Ints
    at: Ints

    def where(self, mask: Bools) -> _Observations:
        return _Observations(self.stay[mask], self.at[mask])


def _observations(
    store: TripletStore, rows: Ints, first: Ints | None = None, last: Ints | None = None
) -> _Observations:
    """Observations first (default 0) to last (default all) of every stay."""
    begin = store.offset[rows]
    end = store.offset[rows + 1] if last is None else begin + last
    if first is not None:
        begin = begin + first
    return _Observations(np.repeat(np.arange(len(rows)), end - begin), _ranges(begin, end - begin))


def _ranges(begin: Ints, count: Ints) -> Ints:
    """begin[0], begin[0] + 1, ... (count[0] numbers), then those from begin[1], and so on."""
    before = np.cumsum(count) - count
    numbers: Ints = np.arange(count.sum()) + np.repeat(begin - before, count)
    return numbers


def _pad(store: TripletStore, rows: Ints, seen: _Observations) -> TripletBatch:
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
class _View:
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
        shown = _observations(store, self.rows[bucket], last=self.seen[bucket])
        if self.visible is not None:
            begin = np.cumsum(self.seen) - self.seen
            shown = shown.where(self.visible[_ranges(begin[bucket], self.seen[bucket])])
        return _pad(store, self.rows[bucket], shown)


def _view(store: TripletStore, rows: Ints, seen: Ints, share: float, rng: np.random.Generator) -> _View:
    """Hide each variable of each stay with probability `share`, but never all of a stay."""
    if share == 0.0:
        return _View(rows, seen, seen)
    visible, lengths = [], []
    for begin in range(0, len(rows), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        shown = _observations(store, rows[chunk], last=seen[chunk])
        count = len(rows[chunk])
        draw = rng.random((count, store.header.codes + 1))[shown.stay, store.code[shown.at]]
        highest = np.zeros(count)
        np.maximum.at(highest, shown.stay, draw)
        visible.append((draw >= share) | (draw == highest[shown.stay]))
        lengths.append(np.bincount(shown.stay[visible[-1]], minlength=count))
    if not visible:
        return _View(rows, seen, seen)
    return _View(rows, seen, np.concatenate(lengths), np.concatenate(visible))


def _without_span(store: TripletStore, view: _View, hours: float, rng: np.random.Generator) -> _View:
    """Hide what was observed in [begin, begin + hours) too, begin uniform over the look-back less `hours`;
    a stay of which nothing would be left keeps what it has."""
    shown = _observations(store, view.rows, last=view.seen)
    begin = rng.random(len(view.rows)) * max(0.0, store.task.lookback_hours - hours)
    since = store.time[shown.at] - begin[shown.stay]
    before = np.ones(len(since), np.bool_) if view.visible is None else view.visible
    after = before & ((since < 0.0) | (since >= hours))
    left = np.bincount(shown.stay[after], minlength=len(view.rows))
    visible = np.where((left > 0)[shown.stay], after, before)
    return _View(view.rows, view.seen, np.bincount(shown.stay[visible], minlength=len(view.rows)), visible)


def _draw_inputs(
    store: TripletStore, rows: Ints, uniform: npt.NDArray[np.float64], config: PretrainConfig
) -> tuple[Bools, Ints]:
    """Where each stay is cut: which of `rows` have a possible t1, and how many observations those see."""
    earliest = np.float32(config.min_input_hours)  # rounded as the store's times are
    able = np.zeros(len(rows), np.bool_)
    inputs = []
    for begin in range(0, len(rows), CHUNK):
        chunk = rows[begin : begin + CHUNK]
        seen = _observations(store, chunk)
        time = store.time[seen.at]
        final = time[np.cumsum(store.lengths[chunk]) - 1] if len(time) else np.zeros(len(chunk), np.float32)
        new = np.ones(len(time), np.bool_)
        new[1:] = (time[1:] != time[:-1]) | (seen.stay[1:] != seen.stay[:-1])
        candidate = np.flatnonzero(new & (time >= earliest) & (time < final[seen.stay]))
        count = np.bincount(seen.stay[candidate], minlength=len(chunk))
        first = np.cumsum(count) - count
        has = count > 0
        chosen = first[has] + (uniform[begin : begin + CHUNK][has] * count[has]).astype(np.int64)
        t1 = np.full(len(chunk), -np.inf, np.float32)
        t1[has] = time[candidate[chosen]]
        able[begin : begin + CHUNK] = has
        inputs.append(np.bincount(seen.stay[time <= t1[seen.stay]], minlength=len(chunk))[has])
    return able, np.concatenate(inputs) if inputs else np.zeros(0, np.int64)


def _forecast(store: TripletStore, view: _View, bucket: Ints, config: PretrainConfig) -> ForecastBatch:
    """The view's stays at the positions in `bucket`, and what comes after what they have seen."""
    rows, seen = view.rows[bucket], view.seen[bucket]
    later = _observations(store, rows, first=seen, last=store.lengths[rows])
    t1 = store.time[store.offset[rows] + seen - 1].astype(np.float64)
    time, code = store.time[later.at], store.code[later.at]
    # Both times carry half a unit of float32 rounding: an observation exactly at the end belongs in.
    within = time - t1[later.stay] <= config.forecast_hours + np.spacing(time)
    later = later.where(within & store.numeric[code])
    cell = later.stay * (store.header.codes + 1) + store.code[later.at]
    cell, first = np.unique(cell, return_index=True)  # the first occurrence: the earliest
    target = np.zeros(len(rows) * (store.header.codes + 1), np.float32)
    measured = np.zeros(len(target), np.bool_)
    target[cell] = store.value[later.at[first]]
    measured[cell] = True
    shape = (len(rows), store.header.codes + 1)
    return ForecastBatch(
        input=view.batch(store, bucket),
        target=torch.from_numpy(target.reshape(shape)),
        target_mask=torch.from_numpy(measured.reshape(shape)),
    )
