"""The C++ linear layer against torch's in float64: outputs and every gradient."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hymate.ops.linear import linear
from tests.hymate.ops.conftest import relative_error

# Rows, inputs, outputs: around the tiles of each instruction set, and more rows than one unit takes.
SHAPES = [(1, 1, 1), (5, 3, 2), (13, 16, 33), (97, 64, 36), (300, 33, 65), (1537, 4, 31), (3200, 40, 12)]
SHAPES += [(0, 4, 3), (7, 128, 256)]


def inputs_of(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return normal(rows, inputs), normal(outputs, inputs), normal(outputs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_torch_in_double(isa: str, shape: tuple[int, int, int], with_bias: bool) -> None:
    given = list(inputs_of(*shape))[: 3 if with_bias else 2]
    ours = [tensor.clone().requires_grad_() for tensor in given]
    double = [tensor.double().requires_grad_() for tensor in given]
    y, expected = linear(*ours), F.linear(*double)
    assert relative_error(y, expected) <= 1e-5
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(y, ours, dy)
    for one, other in zip(found, torch.autograd.grad(expected, double, dy.double()), strict=True):
        assert relative_error(one, other) <= 1e-5


def test_any_leading_dimensions_and_strides() -> None:
    x, weight, bias = inputs_of(60, 24, 7)
    expected = F.linear(x, weight, bias)
    torch.testing.assert_close(linear(x.view(3, 4, 5, 24), weight, bias), expected.view(3, 4, 5, 7))
    torch.testing.assert_close(linear(x[0], weight, bias), expected[0])
    wide = torch.cat([x, x], dim=1)[:, :24]
    torch.testing.assert_close(linear(wide, weight.T.contiguous().T, bias), expected)
    every_other = torch.stack([x, x], dim=-1)[..., 0]
    torch.testing.assert_close(linear(every_other, weight, bias), expected)


def test_only_what_is_asked_for_has_a_gradient() -> None:
    x, weight, bias = inputs_of(9, 4, 3)
    torch.autograd.backward(linear(x, weight.requires_grad_(), bias).sum())
    torch.testing.assert_close(weight.grad, x.sum(dim=0).expand(3, 4))
    x.requires_grad_()
    (dx,) = torch.autograd.grad(linear(x, weight.detach(), bias).sum(), x)
    torch.testing.assert_close(dx, weight.detach().sum(dim=0).expand(9, 4))


def test_threads_do_not_change_a_bit(isa: str, threads: None) -> None:
    x, weight, bias = (tensor.requires_grad_() for tensor in inputs_of(4000, 37, 41))
    dy = torch.randn(4000, 41)
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        y = linear(x, weight, bias)
        results.append([y, *torch.autograd.grad(y, (x, weight, bias), dy)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nan_stays_in_its_row(isa: str) -> None:
    x, weight, bias = inputs_of(30, 20, 40)
    x[7, 3] = math.nan
    assert torch.equal(linear(x, weight, bias).isnan().any(dim=1).nonzero().flatten(), torch.tensor([7]))


def test_operator_registration() -> None:
    importlib.import_module("hymate.ops.linear_native")
    given = tuple(tensor.requires_grad_() for tensor in inputs_of(9, 5, 4))
    torch.library.opcheck(torch.ops.hymate.linear.default, given)


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, weight, bias = inputs_of(9, 5, 4)
    with pytest.raises(ValueError, match="x must have shape"):
        linear(x[:, :3], weight, bias)
    with pytest.raises(ValueError, match="bias must have shape"):
        linear(x, weight, bias[:3])
