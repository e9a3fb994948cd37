"""Dropout's operator: which elements stay, by what factor, and the gradient."""

from __future__ import annotations

import importlib

import pytest
import torch

from hymate.ops.dropout import keep_above

SHAPES = [(1,), (3, 5), (2, 17, 64), (40000,), (0, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threshold", [-(2**15), -7, 2**15 - 1])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_by_definition(
    isa: str, shape: tuple[int, ...], threshold: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYMATE_SCAN", backend)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw, requires_grad=True)
    bits = torch.randint(-(2**15), 2**15, (x.numel(),), generator=draw, dtype=torch.int16)
    kept = torch.tensor([bit >= threshold for bit in bits.tolist()], dtype=torch.bool).view(shape)
    y = keep_above(x, bits, threshold, 1.25)
    assert torch.equal(y, torch.where(kept, x * 1.25, 0.0))
    dy = torch.randn(shape, generator=draw)
    assert torch.equal(torch.autograd.grad(y, x, dy)[0], torch.where(kept, dy * 1.25, 0.0))


def test_reads_strided_inputs() -> None:
    x, bits = torch.randn(6, 4).T, torch.randint(-5, 5, (24,), dtype=torch.int16)
    assert torch.equal(keep_above(x, bits, 0, 2.0), keep_above(x.contiguous(), bits, 0, 2.0))


def test_operator_registration() -> None:
    importlib.import_module("hymate.ops.dropout_native")
    x, bits = torch.randn(3, 4, requires_grad=True), torch.randint(-5, 5, (12,), dtype=torch.int16)
    torch.library.opcheck(torch.ops.hymate.keep_above.default, (x, bits, 0, 1.5))
