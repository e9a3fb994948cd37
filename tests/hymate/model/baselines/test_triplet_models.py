"""STraTS, Mamba only and Transformer only: what each does with its triplets."""

from __future__ import annotations

import math

import pytest
import torch

from hymate.model.baselines.mamba import MambaOnly
from hymate.model.baselines.strats import HalvingLayer, STraTS
from hymate.model.baselines.transformer import TransformerOnly
from hymate.model.config import MambaConfig, STraTSConfig
from tests.hymate.model.baselines.small import new
from tests.hymate.model.batches import CODES, batch_of, random_stay


def test_continuous_value_embedding_by_hand() -> None:
    """d = 4, so two hidden units: e^v = U tanh(W v + b), no second bias (STraTS section 3.2.1)."""
    model = STraTS(STraTSConfig(d_model=4, heads=2), codes=2, static_width=0, time_scale_hours=48.0)
    cve = model.embedding.value
    with torch.no_grad():
        cve.hidden.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        cve.hidden.bias.copy_(torch.tensor([0.5, 0.0]))
        cve.out.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, -2.0]]))
    a, b = math.tanh(2.0 * 0.3 + 0.5), math.tanh(-0.3)
    found = cve(torch.tensor([[0.3]]))[0, 0].tolist()
    assert found == pytest.approx([a, b, a + b, 3 * a - 2 * b], abs=1e-6)


def test_strats_triplet_is_the_sum_of_its_three_embeddings() -> None:
    model = STraTS(STraTSConfig(d_model=4, heads=2), codes=2, static_width=0, time_scale_hours=48.0)
    stay = (torch.tensor([12.0]), torch.tensor([2]), torch.tensor([0.3]), torch.zeros(3))
    parts = model.embedding
    time = parts.time(torch.tensor([[12.0 * 2 / 48 - 1]]))
    expected = parts.feature.weight[2] + parts.value(torch.tensor([[0.3]])) + time
    torch.testing.assert_close(parts(batch_of([stay])), expected)


def test_a_layer_of_strats_halves_what_it_adds() -> None:
    layer = HalvingLayer(d_model=4, heads=2, dropout=0.0).eval()
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 3, 4)
    torch.testing.assert_close(layer(x, torch.ones(1, 3, dtype=torch.bool)), x / 4)


def test_strats_reads_the_label_from_its_forecast() -> None:
    model = new("strats")
    batch = batch_of([random_stay(9, seed=0)])
    head = model.classification_head.out
    expected = model.forecast(batch) @ head.weight[0] + head.bias
    torch.testing.assert_close(model.classify(batch), expected)


def test_parameters_of_strats_are_those_of_the_paper() -> None:
    codes, d, layers = 7, 16, 2
    model = STraTS(STraTSConfig(d_model=d, heads=2, layers=layers), codes, 0, 48.0)
    scalar = 4 + 4 + 4 * d
    layer = (3 * d * d + 3 * d) + (d * d + d) + (d * 2 * d + 2 * d) + (2 * d * d + d)
    fusion = d * d + d + d
    heads = (d + 1) * (codes + 1) + (codes + 1) + 1
    assert model.parameter_count == (codes + 1) * d + 2 * scalar + layers * layer + fusion + heads


def test_mamba_reads_the_last_real_observation() -> None:
    model = new("mamba")
    assert isinstance(model, MambaOnly)
    batch = batch_of([random_stay(9, seed=0), random_stay(4, seed=1)], extra=3)
    x = model.embedding(batch)
    for block in model.blocks:
        x = block(x)
    expected = model.norm(torch.stack([x[0, 8], x[1, 3]])[:, None])[:, 0]
    torch.testing.assert_close(model.summarise(batch), expected)


def test_without_observations_mamba_has_nothing_to_read() -> None:
    assert new("mamba").summarise(batch_of([random_stay(0, seed=0)], extra=2)).eq(0).all()


def test_order_matters_to_mamba_and_only_time_does_to_the_transformer() -> None:
    hours, code, value, static = random_stay(12, seed=3)
    back = (hours.flip(0), code.flip(0), value.flip(0), static)  # the same triplets, last one first
    for name, moves in (("mamba", True), ("transformer", False), ("strats", False)):
        model = new(name)
        change = model.encode(batch_of([(hours, code, value, static)])) - model.encode(batch_of([back]))
        assert bool(change.abs().max() > 1e-3) == moves, name


def test_transformer_is_the_mean_of_real_observations() -> None:
    model = new("transformer")
    assert isinstance(model, TransformerOnly)
    batch = batch_of([random_stay(5, seed=0)], extra=4)
    x = model.embedding(batch)
    for layer in model.layers:
        x = layer(x, batch.mask)
    torch.testing.assert_close(model.summarise(batch)[0], model.norm(x)[0, :5].mean(dim=0))


def test_mamba_has_the_blocks_of_hymate() -> None:
    from hymate.config import ModelConfig
    from hymate.model.hymate import build_model

    ours = MambaOnly(MambaConfig(d_model=16, layers=2), CODES, 0, 48.0)
    theirs = build_model(ModelConfig(d_model=16, mamba_blocks=2, attention_layers=0), CODES, 0, 48.0, seed=0)
    assert ours.blocks.state_dict().keys() == theirs.mamba.state_dict().keys()
    ours.blocks.load_state_dict(theirs.mamba.state_dict())
    ours.embedding.load_state_dict(theirs.embedding.state_dict())
    batch = batch_of([random_stay(6, seed=0)])
    last = theirs.eval().contextualise(batch)[:, -1:]
    torch.testing.assert_close(ours.eval().summarise(batch), ours.norm(last)[:, 0])
