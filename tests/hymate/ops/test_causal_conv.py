"""The C++ convolution against torch's in float64: outputs and every gradient."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymate.ops.causal_conv import causal_conv1d_silu, causal_conv1d_torch
from tests.hymate.ops.conftest import relative_error

SHAPES = [(2, 1, 3, 4), (2, 2, 17, 4), (1, 127, 16, 3), (3, 128, 5, 4), (2, 140, 37, 4), (2, 129, 18, 2)]
SHAPES += [(0, 4, 3, 4), (2, 0, 3, 4), (2, 9, 5, 1)]


def conv_inputs(batch: int, length: int, channels: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return normal(batch, length, channels), normal(channels, 1, width), normal(channels)


def test_reference_is_conv1d_cut_to_the_past() -> None:
    x, weight, bias = conv_inputs(2, 9, 4, 3)
    layer = nn.Conv1d(4, 4, 3, groups=4, padding=2)
    layer.weight.data, layer.bias.data = weight, bias  # type: ignore[union-attr]
    expected = F.silu(layer(x.transpose(1, 2))[..., :9]).transpose(1, 2)
    assert torch.allclose(causal_conv1d_torch(x, weight, bias), expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_reference(isa: str, shape: tuple[int, int, int, int], with_bias: bool) -> None:
    tensors = list(conv_inputs(*shape))[: 3 if with_bias else 2]
    dy = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
    ours = [tensor.clone().requires_grad_() for tensor in tensors]
    double = [tensor.double().requires_grad_() for tensor in tensors]
    y = causal_conv1d_silu(ours[0], ours[1], ours[2] if with_bias else None)
    expected = causal_conv1d_torch(double[0], double[1], double[2] if with_bias else None)
    assert relative_error(y, expected) <= 1e-5
    found = torch.autograd.grad(y, ours, dy)
    for one, other in zip(found, torch.autograd.grad(expected, double, dy.double()), strict=True):
        assert relative_error(one, other) <= 1e-4


def test_wide_kernels_run_in_torch() -> None:
    x, weight, bias = conv_inputs(2, 9, 4, 6)
    assert torch.equal(causal_conv1d_silu(x, weight, bias), causal_conv1d_torch(x, weight, bias))


def test_reads_strided_inputs() -> None:
    x, weight, bias = conv_inputs(2, 40, 24, 4)
    half = x[..., :12]
    found = causal_conv1d_silu(half, weight[:12], bias[:12])
    assert torch.equal(found, causal_conv1d_silu(half.contiguous(), weight[:12], bias[:12]))


def test_filters_per_sample_have_gradients_per_sample() -> None:
    x, weight, bias = conv_inputs(3, 150, 5, 4)
    dy = torch.randn_like(x)
    rows = [weight.expand(3, -1, -1, -1).requires_grad_(), bias.expand(3, -1).requires_grad_()]
    found = torch.autograd.grad(causal_conv1d_silu(x, *rows), rows, dy)
    double = [row.detach().double().requires_grad_() for row in rows]
    expected = torch.autograd.grad(causal_conv1d_torch(x.double(), *double), double, dy.double())
    for one, other in zip(found, expected, strict=True):
        assert one.shape[0] == 3
        assert relative_error(one, other) <= 1e-4


def test_threads_do_not_change_a_bit(isa: str, threads: None) -> None:
    x, weight, bias = (tensor.requires_grad_() for tensor in conv_inputs(3, 500, 21, 4))
    dy = torch.randn_like(x)
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        y = causal_conv1d_silu(x, weight, bias)
        results.append([y, *torch.autograd.grad(y, (x, weight, bias), dy)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nan_stays_in_its_channel_and_future(isa: str) -> None:
    x, weight, bias = conv_inputs(1, 12, 20, 4)
    x[0, 5, 3] = math.nan
    expected = torch.zeros(1, 12, 20, dtype=torch.bool)
    expected[0, 5:9, 3] = True
    assert torch.equal(causal_conv1d_silu(x, weight, bias).isnan(), expected)


def test_operator_registration() -> None:
    importlib.import_module("hymate.ops.convolution_native")
    x, weight, bias = (tensor.requires_grad_() for tensor in conv_inputs(2, 9, 5, 4))
    torch.library.opcheck(torch.ops.hymate.causal_conv1d_silu.default, (x, weight, bias))


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, weight, bias = conv_inputs(2, 9, 5, 4)
    with pytest.raises(ValueError, match="weight has shape"):
        causal_conv1d_silu(x, weight[:3], bias)
    with pytest.raises(ValueError, match="bias has shape"):
        causal_conv1d_silu(x, weight, bias[:3])
