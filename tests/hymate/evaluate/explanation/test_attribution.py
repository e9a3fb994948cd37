"""Attributions add up, for every kind of model; they are exact where the answer is known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hymate.config import ModelConfig
from hymate.data.batching import TripletBatch, collate
from hymate.evaluate.explanation.attention import fusion_weights
from hymate.evaluate.explanation.attribution import integrated_gradients
from hymate.evaluate.explanation.pathway import Pathway
from hymate.evaluate.explanation.sharing import shared
from hymate.model.config import GRUConfig, GRUDConfig, InterpNetConfig, MambaConfig, STraTSConfig
from hymate.model.ensemble import Ensemble
from hymate.model.heads import ClassificationHead
from hymate.model.hymate import HyMaTE
from hymate.model.registry import build
from hymate.model.sequence_model import SequenceModel
from hymate.model.summary import FIGURES
from tests.hymate.train.planted import CODES, MODEL, planted_store

STORE = planted_store(train=8, tuning=1)
BATCH = collate(STORE, np.arange(8))
FULL = {"d_summary": 8, "summary_windows": (1, 3), "value_embedding": "affine", "value_clip": 1.0}


def model(config: object, seed: int = 3) -> SequenceModel:
    made = build(config, codes=CODES, static_width=2, time_scale_hours=48.0, seed=seed)  # type: ignore[arg-type]
    with torch.no_grad():  # first weights answer nearly the same to everything
        for name, parameter in made.named_parameters():
            if "head" in name or "summary.hidden" in name:
                parameter.mul_(5.0)
    return made.eval()


def hymate(**changes: object) -> ModelConfig:
    return MODEL.model_copy(update=changes)


@pytest.mark.parametrize(
    "config",
    [
        hymate(),
        hymate(**FULL),
        hymate(**FULL, static=False, pooling="mean"),
        hymate(embedding="concat", bidirectional=True),
        hymate(embedding="code_value", d_summary=8),
        STraTSConfig(d_model=16, heads=2),
        MambaConfig(d_model=16, layers=1),
        GRUConfig(d_model=16),
        GRUDConfig(d_model=16),
        InterpNetConfig(d_model=16, reference_points=8),
    ],
    ids=lambda config: f"{config.name}-{getattr(config, 'embedding', '')}-{getattr(config, 'd_summary', '')}",
)
def test_attributions_add_up_to_the_difference_of_answers(config: object) -> None:
    made = model(config)
    found = integrated_gradients(Pathway(made, CODES), BATCH, target=None)
    total = found.measured.sum(1) + found.found.sum(1) + found.static.sum(1)
    with torch.no_grad():
        answer = made.classify(BATCH).double().numpy()
    assert found.output == pytest.approx(answer, abs=1e-5)
    assert np.abs(total - (found.output - found.reference)).max() < 2e-3
    assert total - (found.output - found.reference) == pytest.approx(found.gap, abs=1e-5)
    assert np.abs(found.output - found.reference).max() > 0.02  # there is something to explain
    padding = ~BATCH.mask.numpy()
    assert not found.measured[padding].any()
    assert not found.found[padding].any()


def test_the_summary_branch_and_demographics_have_their_part() -> None:
    found = integrated_gradients(Pathway(model(hymate(**FULL)), CODES), BATCH, target=None)
    assert np.abs(found.summary).max() > 1e-3
    assert np.abs(found.static).max() > 1e-3
    without = integrated_gradients(Pathway(model(hymate(static=False)), CODES), BATCH, target=None)
    assert not without.summary.any()
    assert not without.static.any()


class Linear(SequenceModel):
    """Answers 2 + sum of value x code + 3 x the first demographic."""

    def classify(self, batch: TripletBatch) -> Tensor:
        return 2.0 + (batch.value * batch.code * batch.mask).sum(dim=1) + 3.0 * batch.static[:, 0]

    def forecast(self, batch: TripletBatch) -> Tensor:
        raise NotImplementedError


def test_of_a_linear_answer_each_term_is_its_own_attribution() -> None:
    found = integrated_gradients(Pathway(Linear(), CODES), BATCH, target=None)
    terms = (BATCH.value * BATCH.code * BATCH.mask).double().numpy()
    assert found.found == pytest.approx(terms, abs=1e-4)
    assert found.static[:, 0] == pytest.approx(3.0 * BATCH.static[:, 0].double().numpy(), abs=1e-5)
    assert not found.static[:, 1].any()
    assert found.reference == pytest.approx(2.0)
    assert not found.measured.any()


def test_a_stay_is_explained_the_same_alone_and_in_a_batch() -> None:
    pathway = Pathway(model(hymate(**FULL)), CODES)
    together = integrated_gradients(pathway, BATCH, target=None, first_steps=64)
    alone = integrated_gradients(pathway, collate(STORE, np.array([2])), target=None, first_steps=64)
    length = alone.found.shape[1]
    assert together.found[2, :length] == pytest.approx(alone.found[0], abs=1e-5)
    assert together.measured[2, :length] == pytest.approx(alone.measured[0], abs=1e-5)
    assert together.static[2] == pytest.approx(alone.static[0], abs=1e-5)


def test_one_of_several_labels() -> None:
    made = model(hymate())
    assert isinstance(made, HyMaTE)
    torch.manual_seed(0)
    made.classification_head = ClassificationHead(made.width, 3)
    for target in (0, 2):
        found = integrated_gradients(Pathway(made, CODES), BATCH, target=target)
        with torch.no_grad():
            assert found.output == pytest.approx(made.classify(BATCH)[:, target].double().numpy(), abs=1e-5)
        total = found.measured.sum(1) + found.found.sum(1) + found.static.sum(1)
        assert total == pytest.approx(found.output - found.reference, abs=2e-3)


@pytest.mark.parametrize("of_probabilities", [True, False])
def test_an_ensemble_is_explained_as_one_model(of_probabilities: bool) -> None:
    members = [model(hymate(**FULL), seed) for seed in (3, 4)]
    both = Ensemble(members, of_probabilities=of_probabilities).eval()
    found = integrated_gradients(Pathway(both, CODES), BATCH, target=None)
    with torch.no_grad():
        assert found.output == pytest.approx(both.classify(BATCH).double().numpy(), abs=1e-5)
    total = found.measured.sum(1) + found.found.sum(1) + found.static.sum(1)
    assert total == pytest.approx(found.output - found.reference, abs=2e-3)
    assert np.abs(found.measured).max() > 1e-3
    apart = [integrated_gradients(Pathway(member, CODES), BATCH, target=None) for member in members]
    if not of_probabilities:  # then the answer is the mean, and attributions are linear in it
        assert found.measured == pytest.approx((apart[0].measured + apart[1].measured) / 2, abs=1e-3)
        assert found.found == pytest.approx((apart[0].found + apart[1].found) / 2, abs=1e-3)
        assert found.summary == pytest.approx((apart[0].summary + apart[1].summary) / 2, abs=1e-3)
    weights = [fusion_weights(each, BATCH) for each in (both, *members)]
    assert weights[0] == pytest.approx((weights[1] + weights[2]) / 2)  # type: ignore[operator]


def test_the_reference_knows_neither_codes_nor_values_nor_the_patient() -> None:
    pathway = Pathway(model(hymate(**FULL)), CODES)
    rng = torch.Generator().manual_seed(0)
    other = replace(
        BATCH,
        code=torch.where(BATCH.mask, torch.randint(1, CODES + 1, BATCH.code.shape, generator=rng), 0),
        value=torch.where(BATCH.mask, torch.randn(BATCH.value.shape, generator=rng), 0.0),
        static=torch.randn(BATCH.static.shape, generator=rng),
    )
    first, second = (integrated_gradients(pathway, batch, target=None) for batch in (BATCH, other))
    assert first.reference == pytest.approx(second.reference, abs=1e-5)
    assert np.abs(first.output - second.output).max() > 0.01


def test_figures_go_to_the_observations_they_are_made_of() -> None:
    """Two readings of code 1 and one of code 2, one window: every amount is placed, and none is lost."""
    made = model(hymate(d_summary=8, summary_windows=(1,)))
    assert isinstance(made, HyMaTE)
    assert made.summary is not None
    batch = TripletBatch(
        time=torch.tensor([[1.0, 5.0, 9.0, 0.0]]),
        code=torch.tensor([[1, 2, 1, 0]]),
        value=torch.tensor([[0.5, 1.0, -0.5, 0.0]]),
        mask=torch.tensor([[True, True, True, False]]),
        static=torch.zeros(1, 2),
        label=torch.zeros(1),
        row=torch.zeros(1, dtype=torch.int64),
    )
    for name, expected in {
        "last": [0.0, 10.0, 6.0, 0.0],
        "recency": [0.0, 10.0, 6.0, 0.0],
        "first": [6.0, 10.0, 0.0, 0.0],
        "highest": [6.0, 10.0, 0.0, 0.0],
        "lowest": [0.0, 10.0, 6.0, 0.0],
        "mean": [3.0, 10.0, 3.0, 0.0],
        "count": [3.0, 10.0, 3.0, 0.0],
        "slope": [3.0, 10.0, 3.0, 0.0],
    }.items():
        amounts = torch.zeros(1, CODES + 1, len(FIGURES))
        amounts[0, 1, FIGURES.index(name)], amounts[0, 2, FIGURES.index(name)] = 6.0, 10.0
        assert shared(amounts, batch, batch.value, made.summary)[0].tolist() == expected, name


def test_attention_is_that_of_the_fusion() -> None:
    made = model(hymate())
    assert isinstance(made, HyMaTE)
    weights = fusion_weights(made, BATCH)
    assert weights is not None
    assert weights.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    assert not weights[~BATCH.mask.numpy()].any()
    assert np.ptp(weights[0, : int(BATCH.mask[0].sum())]) > 0
    with torch.no_grad():
        x = made.contextualise(BATCH)
        for layer in made.attention:
            x = layer(x, BATCH.mask)
        pooled = torch.einsum("bl,bld->bd", torch.from_numpy(weights).float(), made.norm(x))
        assert torch.allclose(pooled, made.pool(BATCH), atol=1e-5)


@pytest.mark.parametrize("config", [GRUConfig(d_model=16), hymate(pooling="mean")])
def test_without_fusion_attention_there_are_no_weights(config: object) -> None:
    assert fusion_weights(model(config), BATCH) is None


def test_nothing_of_the_model_is_changed() -> None:
    made = model(hymate(**FULL))
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    integrated_gradients(Pathway(made, CODES), BATCH, target=None)
    fusion_weights(made, BATCH)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())
    assert "figures" not in vars(made)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in made.modules())
