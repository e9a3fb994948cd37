"""Masked forecasting: each stay is cut at a random time t1, and what comes just after is asked for (STraTS,
Tipirneni & Reddy 2022, section 3.4, https://arxiv.org/abs/2107.14293)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from hymate.data.batching import (
    CHUNK,
    Bools,
    Ints,
    TripletBatch,
    View,
    length_buckets,
    observations,
    without_variables,
)

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.config import PretrainConfig
    from hymate.data.store import TripletStore


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
    view = without_variables(store, rows[able], seen, config.variable_dropout, rng)
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
    view = View(rows[able], seen, seen)
    for bucket in length_buckets(view.lengths, config.batch_size, None):
        yield _forecast(store, view, bucket, config)


def _draw_inputs(
    store: TripletStore, rows: Ints, uniform: npt.NDArray[np.float64], config: PretrainConfig
) -> tuple[Bools, Ints]:
    """Where each stay is cut: which of `rows` have a possible t1, and how many observations those see."""
    earliest = np.float32(config.min_input_hours)  # rounded as the store's times are
    able = np.zeros(len(rows), np.bool_)
    inputs = []
    for begin in range(0, len(rows), CHUNK):
        chunk = rows[begin : begin + CHUNK]
        seen = observations(store, chunk)
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


def _forecast(store: TripletStore, view: View, bucket: Ints, config: PretrainConfig) -> ForecastBatch:
    """The view's stays at the positions in `bucket`, and what comes after what they have seen."""
    rows, seen = view.rows[bucket], view.seen[bucket]
    later = observations(store, rows, first=seen, last=store.lengths[rows])
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
