"""Padding never changes a result, whichever baseline: outputs and gradients of a stay are its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hymate.data.batching import TripletBatch
from hymate.model.baselines.baseline import Baseline
from tests.hymate.model.baselines.small import SMALL, new
from tests.hymate.model.batches import CODES, batch_of, random_stay

LENGTHS = (30, 1, 61, 12)
STAYS = [random_stay(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.fixture(params=sorted(SMALL))
def model(request: pytest.FixtureRequest) -> Baseline:
    return new(request.param)


def outputs(model: Baseline, batch: TripletBatch) -> Tensor:
    made = [model.classify(batch)[:, None], model.encode(batch)]
    return torch.cat([*made, model.forecast(batch)] if model.can_forecast else made, dim=1)


def gradients(model: Baseline, batch: TripletBatch) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(outputs(model, batch).square().sum())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_stay_gives_the_same_output_in_any_company(model: Baseline) -> None:
    together = outputs(model, batch_of(STAYS))
    assert together[:, 0].std() > 1e-4  # the stays differ, so equal rows would show
    for row, stay in enumerate(STAYS):
        alone = outputs(model, batch_of([stay]))[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs(model, batch_of(STAYS, extra=40)), together, atol=1e-5, rtol=0)
    order = [2, 0, 3, 1]
    shuffled = outputs(model, batch_of([STAYS[row] for row in order]))
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)


def test_a_batch_has_the_summed_gradient_of_its_stays(model: Baseline) -> None:
    together = gradients(model, batch_of(STAYS, extra=9))
    alone = [gradients(model, batch_of([stay])) for stay in STAYS]
    for name, gradient in together.items():
        expected = torch.stack([one[name] for one in alone]).sum(dim=0)
        scale = expected.abs().max().clamp(min=1.0)
        torch.testing.assert_close(gradient / scale, expected / scale, atol=1e-5, rtol=0, msg=name)


def test_nothing_under_the_mask_matters(model: Baseline) -> None:
    clean = batch_of(STAYS)
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


def test_a_stay_without_observations_is_finite(model: Baseline) -> None:
    empty = random_stay(0, seed=9)
    among_others = batch_of([empty, random_stay(6, seed=1)], extra=1)
    alone = batch_of([empty], extra=1)
    assert outputs(model, alone).isfinite().all()
    torch.testing.assert_close(outputs(model, among_others)[0], outputs(model, alone)[0], atol=1e-5, rtol=0)
    for gradient in gradients(model, among_others).values():
        assert gradient.isfinite().all()


def test_a_batch_of_no_stays_is_possible(model: Baseline) -> None:
    assert model.classify(batch_of([], extra=4)).shape == (0,)


def test_values_times_codes_and_demographics_matter(model: Baseline) -> None:
    hours, code, value, static = random_stay(40, seed=3)
    base = outputs(model, batch_of([(hours, code, value, static)]))
    others = {
        "values": (hours, code, value + 1.0, static),
        "times": (hours * 0.5, code, value, static),
        "codes": (hours, code % CODES + 1, value, static),
        "demographics": (hours, code, value, static + 1.0),
    }
    for what, stay in others.items():
        assert (outputs(model, batch_of([stay])) - base).abs().max() > 1e-4, what
