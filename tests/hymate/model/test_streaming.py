"""One observation at a time gives what the whole sequence gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.config import ModelConfig
from hymate.data.batching import TripletBatch
from hymate.model.hymate import HyMaTE, build_model
from hymate.model.streaming import StackState
from tests.hymate.model.batches import CODES, SMALL, STATIC, batch_of, random_stay


def column(batch: TripletBatch, at: int) -> TripletBatch:
    one = slice(at, at + 1)
    return TripletBatch(
        time=batch.time[:, one],
        code=batch.code[:, one],
        value=batch.value[:, one],
        mask=batch.mask[:, one],
        static=batch.static,
        label=batch.label,
        row=batch.row,
    )


def rows(batch: TripletBatch, stays: slice) -> TripletBatch:
    return TripletBatch(*(getattr(batch, name)[stays] for name in TripletBatch.__dataclass_fields__))


def built(config: ModelConfig, seed: int) -> HyMaTE:
    model = build_model(config, CODES, STATIC, 48.0, seed=seed).eval()
    with torch.no_grad():
        for block in model.mamba:
            block.mixer.ssm.D.normal_()
            block.norm.weight.uniform_(0.5, 2.0)
    return model


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    width=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
def test_steps_equal_the_stack_after_any_prefix(lengths: list[int], width: int, seed: int) -> None:
    model = built(SMALL.model_copy(update={"d_conv": width}), seed)
    batch = batch_of([random_stay(length, seed + row) for row, length in enumerate(lengths)], extra=1)
    state = model.first_state(len(lengths))
    with torch.no_grad():
        whole = model.contextualise(batch)
        for at in range(batch.mask.shape[1]):
            x, state = model.step(state, column(batch, at))
            torch.testing.assert_close(x, whole[:, at], atol=2e-5, rtol=1e-4)


def test_a_stay_without_a_new_observation_keeps_its_state() -> None:
    model = built(SMALL, 0)
    batch = batch_of([random_stay(9, 0), random_stay(4, 1)])
    state = model.first_state(2)
    states: list[StackState] = []
    with torch.no_grad():
        for at in range(9):
            _, state = model.step(state, column(batch, at))
            states.append(state)
    for early, late in zip(states[3].blocks, states[8].blocks, strict=True):
        assert torch.equal(early.h[1], late.h[1])
        assert torch.equal(early.window[1], late.window[1])
        assert not torch.equal(early.h[0], late.h[0])
        assert early.h.shape == late.h.shape  # constant memory


def test_a_state_can_be_used_twice() -> None:
    model = built(SMALL, 0)
    batch = batch_of([random_stay(5, 0)])
    with torch.no_grad():
        _, state = model.step(model.first_state(1), column(batch, 0))
        first = model.step(state, column(batch, 1))[0]
        model.step(state, column(batch, 2))
        assert torch.equal(model.step(state, column(batch, 1))[0], first)


def test_only_one_observation_of_the_same_stays() -> None:
    model = built(SMALL, 0)
    batch = batch_of([random_stay(5, 0), random_stay(5, 1)])
    with pytest.raises(ValueError, match="not 5 of 2"):
        model.step(model.first_state(2), batch)
    with pytest.raises(ValueError, match="each of 2 stays"):
        model.step(model.first_state(2), column(rows(batch, slice(0, 1)), 0))
