"""Summaries of a stay: figures against a plain loop, windows, masks, the branch within the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hymate.config import ModelConfig
from hymate.data.batching import TripletBatch
from hymate.model.hymate import HyMaTE, build_model
from hymate.model.summary import FIGURES, STEEPEST, SummaryEmbedding, summarise
from tests.hymate.model.batches import CODES, SMALL, STATIC, batch_of, random_stay

LENGTHS = (7, 1, 60, 12)
WITH_SUMMARY = SMALL.model_copy(update={"d_summary": 8, "summary_windows": (1, 4), "value_clip": 2.0})


def stays_of(extra: int = 0) -> TripletBatch:
    return batch_of([random_stay(length, seed) for seed, length in enumerate(LENGTHS)], extra)


def plain(batch: TripletBatch, begin: float, end: float, final: bool) -> np.ndarray:
    """The same figures by a loop over stays and codes."""
    figures = np.zeros((len(batch.mask), CODES + 1, len(FIGURES)))
    for row, mask in enumerate(batch.mask.numpy()):
        time, code, value = (
            x[row].numpy()[mask].astype(float) for x in (batch.time, batch.code, batch.value)
        )
        for each in range(1, CODES + 1):
            at = (code == each) & (time >= begin) & ((time < end) | final)
            if not at.any():
                continue
            x, t = value[at], (time[at] - begin) / (end - begin)
            covariance = ((x - x.mean()) * (t - t.mean())).mean()
            slope = np.clip(covariance / max(t.var(), 1e-3), -STEEPEST, STEEPEST)
            figures[row, each] = (
                *(1.0, np.log1p(at.sum()) / 2, x.mean(), x.std(), x.min(), x.max()),
                *(x[0], x[-1], 2 * t[-1] - 1, slope),
            )
    return figures


@pytest.mark.parametrize(("begin", "end", "final"), [(0.0, 48.0, True), (12.0, 24.0, False)])
def test_figures_are_those_of_a_plain_loop(begin: float, end: float, final: bool) -> None:
    batch = stays_of(extra=5)
    found = summarise(batch.time, batch.code, batch.value, batch.mask, CODES, begin, end, final)
    np.testing.assert_allclose(found.numpy(), plain(batch, begin, end, final), atol=2e-5)
    assert (found[2, 1:, 0] == 1).any()


def test_an_observation_on_a_boundary_is_in_one_window() -> None:
    stay = (torch.tensor([24.0, 48.0]), torch.tensor([3, 4]), torch.ones(2), torch.zeros(STATIC))
    branch = SummaryEmbedding(CODES, STATIC, 8, (2,), 48.0, 0.0, 0.0)
    batch = batch_of([stay])
    present = branch.inputs(batch, batch.value).reshape(CODES + 1, 2, len(FIGURES))[:, :, 0]
    assert present[3].tolist() == [0.0, 1.0]
    assert present[4].tolist() == [0.0, 1.0]
    assert present.sum() == 2


@pytest.fixture
def model() -> HyMaTE:
    return build_model(WITH_SUMMARY, CODES, STATIC, 48.0, seed=0).eval()


def test_a_stay_is_classified_the_same_in_any_company(model: HyMaTE) -> None:
    together = model.classify(stays_of(extra=9))
    for row, length in enumerate(LENGTHS):
        alone = model.classify(batch_of([random_stay(length, row)]))[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)


def test_nothing_under_the_mask_matters(model: HyMaTE) -> None:
    clean = stays_of(extra=3)
    hidden = ~clean.mask
    dirty = replace(
        clean,
        time=clean.time.masked_fill(hidden, float("nan")),
        code=clean.code.masked_fill(hidden, CODES),
        value=clean.value.masked_fill(hidden, float("nan")),
    )
    torch.testing.assert_close(model.classify(dirty), model.classify(clean), atol=0, rtol=0)


def test_a_batch_without_observations_is_classified(model: HyMaTE) -> None:
    empty = batch_of([random_stay(0, 0), random_stay(0, 1)])
    assert torch.isfinite(model.classify(empty)).all()
    torch.testing.assert_close(
        model.classify(batch_of([random_stay(0, 0)], extra=4))[0], model.classify(empty)[0]
    )


def test_every_weight_of_the_branch_learns(model: HyMaTE) -> None:
    torch.autograd.backward(model.classify(stays_of()).sum())
    assert model.summary is not None
    for name, parameter in model.summary.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_forecasting_does_without_the_branch(model: HyMaTE) -> None:
    without = build_model(SMALL.model_copy(update={"value_clip": 2.0}), CODES, STATIC, 48.0, seed=0).eval()
    shared = {k: v for k, v in model.state_dict().items() if k in without.state_dict() and "classif" not in k}
    without.load_state_dict(shared, strict=False)
    torch.testing.assert_close(model.forecast(stays_of()), without.forecast(stays_of()), atol=0, rtol=0)


def test_values_beyond_the_clip_count_as_the_clip(model: HyMaTE) -> None:
    batch = stays_of()
    extreme, at_clip = (replace(batch, value=batch.value.sign() * size) for size in (180.0, 2.0))
    torch.testing.assert_close(model.classify(extreme), model.classify(at_clip), atol=0, rtol=0)
    inside = replace(batch, value=batch.value.sign())
    assert (model.classify(inside) - model.classify(at_clip)).abs().max() > 1e-4


def test_the_affine_value_embedding_begins_as_the_shared_one_and_learns_by_code() -> None:
    affine = build_model(
        SMALL.model_copy(update={"value_embedding": "affine"}), CODES, STATIC, 48.0, seed=0
    ).eval()
    batch, embedding = stays_of(), affine.embedding
    before = embedding(batch)
    assert embedding.gain is not None
    with torch.no_grad():
        embedding.gain.weight[5] = 1.0
    change = (embedding(batch) - before).abs().sum(dim=-1)
    assert (change[batch.code == 5] > 0).any()
    assert change[batch.code != 5].max() == 0
    embedding.gain = None
    torch.testing.assert_close(embedding(batch), before, atol=0, rtol=0)


def test_thresholds_show_each_figure_as_soft_steps() -> None:
    config = ModelConfig(d_model=8, d_state=4, attention_heads=2, d_summary=4, summary_thresholds=3)
    branch = build_model(config, codes=2, static_width=0, time_scale_hours=48.0, seed=0).summary
    assert branch is not None
    assert branch.figures.in_features == 4 * len(FIGURES)
    figures = torch.randn(5, 3, len(FIGURES))
    seen = torch.cat([figures, *(torch.tanh(1.5 * (figures - at)) for at in (-2.0, 0.0, 2.0))], dim=-1)
    hooked: list[Tensor] = []
    branch.figures.register_forward_pre_hook(lambda layer, given: hooked.append(given[0]))
    branch.eval().embed(figures, torch.zeros(5, 0))
    assert torch.allclose(hooked[0], seen)
