"""The C++ dropout as an operator of torch, as `scan_native` does for the scan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hymate.ops import _native
from hymate.ops.operators import launch, register_gradient, register_operator


def keep_above_native(x: Tensor, bits: Tensor, threshold: int, scale: float) -> Tensor:
    """`keep_above` by the C++ kernel; float32 on the CPU."""
    y: Tensor = torch.ops.hymate.keep_above(x, bits, threshold, scale)
    return y


def _forward(x: Tensor, bits: Tensor, threshold: int, scale: float) -> Tensor:
    y = x.new_empty(x.shape)
    launch(_native.dropout, x.contiguous(), bits.contiguous(), threshold, scale, y)
    return y


def _forward_shapes(x: Tensor, bits: Tensor, threshold: int, scale: float) -> Tensor:
    return x.new_empty(x.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, bits, ctx.threshold, ctx.scale = inputs
    ctx.save_for_backward(bits)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (bits,) = ctx.saved_tensors
    return torch.ops.hymate.keep_above(dy, bits, ctx.threshold, ctx.scale), None, None, None


register_operator(
    "keep_above",
    "(Tensor x, Tensor bits, int threshold, float scale) -> Tensor",
    kernel=_forward,
    shapes=_forward_shapes,
)
register_gradient("keep_above", remember=_remember, gradient=_differentiate)
