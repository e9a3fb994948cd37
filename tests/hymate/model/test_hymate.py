"""What is learned, where it starts, and what may be left out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hymate.config import ModelConfig
from hymate.model.attention import FusionAttention
from hymate.model.embedding import TripletEmbedding
from hymate.model.hymate import build_model
from tests.hymate.model.batches import CODES, SMALL, STATIC, batch_of, random_stay


def test_gradient_reaches_every_parameter() -> None:
    model = build_model(SMALL, CODES, STATIC, 48.0, seed=0)
    batch = batch_of([random_stay(30, seed) for seed in range(4)])
    torch.autograd.backward(model.classify(batch).sum() + model.forecast(batch).square().sum())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_padding_code_is_never_learned() -> None:
    model = build_model(SMALL, CODES, STATIC, 48.0, seed=0)
    logits = model.classify(batch_of([random_stay(5, 0), random_stay(9, 1)], extra=3))
    torch.autograd.backward(logits.sum())
    table = model.embedding.feature.weight
    assert table[0].eq(0).all()
    assert table.grad is not None
    assert table.grad[0].eq(0).all()


def test_embedding_is_the_sum_of_its_three_parts() -> None:
    torch.manual_seed(0)
    embedding = TripletEmbedding(CODES, 16, time_scale_hours=24.0)
    batch = batch_of(
        [(torch.tensor([0.0, 24.0]), torch.tensor([3, 5]), torch.tensor([0.5, -2.0]), torch.zeros(3))]
    )
    e = embedding(batch)[0]
    for position, (code, value, scaled_time) in enumerate([(3, 0.5, -1.0), (5, -2.0, 1.0)]):
        parts = embedding.feature.weight[code].clone()
        for ffn, number in ((embedding.value, value), (embedding.time, scaled_time)):
            hidden = torch.tanh(ffn.hidden.weight[:, 0] * number + ffn.hidden.bias)
            parts += ffn.out.weight @ hidden
        torch.testing.assert_close(e[position], parts)
    assert embedding.value.hidden.out_features == 4  # sqrt(d)


def test_fusion_attention_by_hand() -> None:
    torch.manual_seed(0)
    fusion = FusionAttention(2)
    with torch.no_grad():
        fusion.hidden.weight.copy_(torch.eye(2))
        fusion.hidden.bias.zero_()
        fusion.score.weight.copy_(torch.tensor([[1.0, 0.0]]))
    c = torch.tensor([[[0.5, 3.0], [-0.5, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    first, second = math.exp(math.tanh(0.5)), math.exp(math.tanh(-0.5))
    a = first / (first + second)
    torch.testing.assert_close(fusion.weights(c, mask), torch.tensor([[a, 1 - a, 0.0]]))
    expected = torch.tensor([[a * 0.5 - (1 - a) * 0.5, a * 3 + (1 - a)]])
    torch.testing.assert_close(fusion(c, mask), expected)


def test_no_buffers_and_no_bare_parameters_beside_children() -> None:
    """What per-sample gradients need: parameters only in leaf modules, and nothing but parameters."""
    model = build_model(SMALL, CODES, STATIC, 48.0, seed=0)
    assert list(model.buffers()) == []
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        assert not own or not list(module.children()), name


def test_every_parameter_is_used_through_its_own_module() -> None:
    """Hooks on modules see every use: a weight used past its module would lose its gradient here."""
    model = build_model(SMALL, CODES, STATIC, 48.0, seed=0)
    called: set[nn.Module] = set()
    for module in model.modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_hook(lambda module, *_: called.add(module))
    batch = batch_of([random_stay(8, 0)])
    model.classify(batch)
    model.forecast(batch)
    owners = {module for module in model.modules() if list(module.parameters(recurse=False))}
    assert called == owners


@pytest.mark.parametrize(
    ("changed", "static_width"),
    [
        ({"attention_layers": 0}, 3),
        ({"attention_layers": 2}, 3),
        ({"mamba_blocks": 1, "expand": 1}, 3),
        ({}, 0),
    ],
)
def test_parts_may_be_left_out(changed: dict[str, int], static_width: int) -> None:
    config = SMALL.model_copy(update=changed)
    model = build_model(config, CODES, static_width, 48.0, seed=0).eval()
    batch = batch_of([random_stay(8, 0), random_stay(3, 1)])
    width = config.d_model + (config.d_static if static_width else 0)
    assert model.encode(batch).shape == (2, width)
    assert model.classify(batch).shape == (2,)
    assert model.forecast(batch).shape == (2, CODES + 1)
    assert model.parameter_count == sum(p.numel() for p in model.state_dict().values())


def test_the_seed_alone_gives_the_first_weights() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = build_model(SMALL, CODES, STATIC, 48.0, seed=4).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(10)
    again = build_model(SMALL, CODES, STATIC, 48.0, seed=4).state_dict()
    other = build_model(SMALL, CODES, STATIC, 48.0, seed=5).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.feature.weight"], other["embedding.feature.weight"])


def test_default_model_is_small() -> None:
    model = build_model(ModelConfig(), codes=37, static_width=9, time_scale_hours=48.0, seed=0)
    assert 50_000 < model.parameter_count < 200_000
