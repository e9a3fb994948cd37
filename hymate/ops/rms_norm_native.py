"""The C++ RMSNorm as operators of torch, as `scan_native` does for the scan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hymate.ops import _native
from hymate.ops.operators import launch, parameter_rows, register_gradient, register_operator, sequence_rows


def rms_norm_native(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`rms_norm` by the C++ kernel; float32 on the CPU, differentiable once."""
    y: Tensor = torch.ops.hymate.rms_norm(x, weight, epsilon)
    return y


def _forward(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    y = x.new_empty(x.shape)
    launch(_native.norm_forward, sequence_rows(x), parameter_rows(weight, 1), epsilon, y)
    return y


def _forward_shapes(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return x.new_empty(x.shape)


def _backward(dy: Tensor, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    dx, dweight = _backward_shapes(dy, x, weight, epsilon)
    launch(
        _native.norm_backward,
        sequence_rows(dy),
        sequence_rows(x),
        parameter_rows(weight, 1),
        epsilon,
        dx,
        dweight,
    )
    return dx, dweight


def _backward_shapes(dy: Tensor, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(weight.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.epsilon = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    return (*torch.ops.hymate.rms_norm_backward(dy, x, weight, ctx.epsilon), None)


register_operator(
    "rms_norm",
    "(Tensor x, Tensor weight, float epsilon) -> Tensor",
    kernel=_forward,
    shapes=_forward_shapes,
)
register_operator(
    "rms_norm_backward",
    "(Tensor dy, Tensor x, Tensor weight, float epsilon) -> (Tensor, Tensor)",
    kernel=_backward,
    shapes=_backward_shapes,
)
register_gradient("rms_norm", remember=_remember, gradient=_differentiate)
