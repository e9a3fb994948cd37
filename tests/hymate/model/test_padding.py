"""Padding never changes a result: outputs and gradients of a stay do not depend on its company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hymate.data.batching import TripletBatch
from hymate.model.hymate import HyMaTE, build_model
from tests.hymate.model.batches import CODES, SMALL, STATIC, batch_of, random_stay

LENGTHS = (7, 1, 23, 12)


@pytest.fixture
def model() -> HyMaTE:
    return build_model(SMALL, CODES, STATIC, 48.0, seed=0).eval()


def outputs(model: HyMaTE, batch: TripletBatch) -> Tensor:
    return torch.cat([model.forecast(batch), model.classify(batch).unsqueeze(1)], dim=1)


def gradients(model: HyMaTE, batch: TripletBatch) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(outputs(model, batch).square().sum())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_stay_gives_the_same_output_in_any_company(model: HyMaTE) -> None:
    stays = [random_stay(length, seed) for seed, length in enumerate(LENGTHS)]
    together = outputs(model, batch_of(stays))
    assert together.std(dim=0).min() > 1e-3  # the stays differ, so equal rows would show
    for row, stay in enumerate(stays):
        alone = outputs(model, batch_of([stay]))[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs(model, batch_of(stays, extra=40)), together, atol=1e-5, rtol=0)
    order = [2, 0, 3, 1]
    shuffled = outputs(model, batch_of([stays[row] for row in order]))
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)


def test_a_batch_has_the_summed_gradient_of_its_stays(model: HyMaTE) -> None:
    stays = [random_stay(length, seed) for seed, length in enumerate(LENGTHS)]
    together = gradients(model, batch_of(stays, extra=9))
    alone = [gradients(model, batch_of([stay])) for stay in stays]
    for name, gradient in together.items():
        expected = torch.stack([one[name] for one in alone]).sum(dim=0)
        scale = expected.abs().max().clamp(min=1.0)
        torch.testing.assert_close(gradient / scale, expected / scale, atol=1e-5, rtol=0, msg=name)


def test_nothing_under_the_mask_matters(model: HyMaTE) -> None:
    clean = batch_of([random_stay(length, seed) for seed, length in enumerate(LENGTHS)])
    hidden = ~clean.mask
    dirty = replace(
        clean,
        time=clean.time.masked_fill(hidden, float("nan")),
        value=clean.value.masked_fill(hidden, float("nan")),
        code=clean.code.masked_fill(hidden, CODES),
    )
    assert torch.equal(outputs(model, clean), outputs(model, dirty))
    clean_gradients, dirty_gradients = gradients(model, clean), gradients(model, dirty)
    assert all(torch.equal(clean_gradients[name], dirty_gradients[name]) for name in clean_gradients)


@pytest.mark.parametrize("extra", [0, 5])
def test_a_stay_without_observations_is_finite(model: HyMaTE, extra: int) -> None:
    empty = random_stay(0, seed=9)
    among_others = batch_of([empty, random_stay(6, seed=1)], extra)
    alone = batch_of([empty], extra)
    torch.testing.assert_close(outputs(model, among_others)[0], outputs(model, alone)[0], atol=1e-5, rtol=0)
    assert model.encode(alone)[0, : SMALL.d_model].eq(0).all()  # nothing to pool
    for gradient in gradients(model, among_others).values():
        assert gradient.isfinite().all()


def test_padding_is_zero_where_layers_meet(model: HyMaTE) -> None:
    batch = batch_of([random_stay(length, seed) for seed, length in enumerate(LENGTHS)], extra=2)
    assert model.embedding(batch)[~batch.mask].eq(0).all()
    assert model.embedding(batch)[batch.mask].ne(0).any(dim=-1).all()
    seen: list[Tensor] = []
    model.attention[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.encode(batch)
    assert seen[0][~batch.mask].eq(0).all()


def test_a_batch_of_no_stays_is_possible(model: HyMaTE) -> None:
    empty = batch_of([], extra=4)
    assert model.classify(empty).shape == (0,)
    assert model.forecast(empty).shape == (0, CODES + 1)


def test_time_and_order_matter(model: HyMaTE) -> None:
    hours, code, value, static = random_stay(12, seed=3)
    base = outputs(model, batch_of([(hours, code, value, static)]))
    later = outputs(model, batch_of([(hours * 0.5, code, value, static)]))
    swapped = outputs(model, batch_of([(hours, code.flip(0), value.flip(0), static)]))
    assert (base - later).abs().max() > 1e-4
    assert (base - swapped).abs().max() > 1e-4


def test_past_observations_do_not_see_the_future() -> None:
    """The Mamba stack is causal: what it says of the first observations holds whatever follows."""
    model = build_model(SMALL, CODES, STATIC, 48.0, seed=0).eval()
    stay = random_stay(20, seed=5)
    x = model.embedding(batch_of([stay]))
    changed = x.clone()
    changed[:, 12:] += 1.0
    for block in model.mamba:
        x, changed = block(x), block(changed)
    torch.testing.assert_close(x[:, :12], changed[:, :12], atol=1e-6, rtol=0)
    assert (x[:, 12:] - changed[:, 12:]).abs().max() > 0.1
