"""The C++ RMSNorm against its formula in float64: outputs and every gradient."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from hymate.ops.rms_norm import rms_norm
from tests.hymate.ops.conftest import relative_error

SHAPES = [(2, 1, 1), (2, 5, 3), (3, 17, 16), (1, 129, 37), (2, 260, 64), (0, 4, 8), (2, 0, 8)]


def by_formula(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    scaled = x / (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()
    return scaled * (weight if weight.dim() == 1 else weight[:, None])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_equals_formula(
    isa: str, shape: tuple[int, int, int], per_sample: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYMATE_SCAN", backend)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn((shape[0], shape[2]) if per_sample else shape[2:], generator=generator)
    dy = torch.randn(shape, generator=generator)
    ours = [tensor.clone().requires_grad_() for tensor in (x, weight)]
    double = [tensor.double().requires_grad_() for tensor in (x, weight)]
    y, expected = rms_norm(*ours, 1e-3), by_formula(*double, 1e-3)
    assert relative_error(y, expected) <= 1e-5
    found = torch.autograd.grad(y, ours, dy)
    for one, other in zip(found, torch.autograd.grad(expected, double, dy.double()), strict=True):
        assert relative_error(one, other) <= 1e-4


def test_a_row_of_zeros_has_a_finite_gradient(isa: str) -> None:
    x, weight = torch.zeros(1, 3, 20, requires_grad=True), torch.ones(20, requires_grad=True)
    y = rms_norm(x, weight, 1e-5)
    assert y.eq(0).all()
    dx, dweight = torch.autograd.grad(y.sum(), (x, weight))
    torch.testing.assert_close(dx, torch.full_like(x, 1e-5**-0.5))
    assert dweight.eq(0).all()


def test_reads_strided_inputs() -> None:
    x, weight = torch.randn(2, 30, 40), torch.randn(20)
    assert torch.equal(rms_norm(x[..., :20], weight, 1e-5), rms_norm(x[..., :20].contiguous(), weight, 1e-5))


def test_threads_do_not_change_a_bit(isa: str, threads: None) -> None:
    x, weight = torch.randn(3, 500, 21, requires_grad=True), torch.randn(21, requires_grad=True)
    dy, results = torch.randn(3, 500, 21), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        y = rms_norm(x, weight, 1e-5)
        results.append([y, *torch.autograd.grad(y, (x, weight), dy)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_operator_registration() -> None:
    importlib.import_module("hymate.ops.rms_norm_native")
    given = (torch.randn(2, 9, 5, requires_grad=True), torch.randn(5, requires_grad=True), 1e-5)
    torch.library.opcheck(torch.ops.hymate.rms_norm.default, given)
