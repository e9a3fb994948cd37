"""The C++ convolution as operators of torch, as `scan_native` does for the scan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hymate.ops import _native
from hymate.ops.operators import launch, parameter_rows, register_gradient, register_operator, sequence_rows


def causal_conv1d_native(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`causal_conv1d_silu` by the C++ kernel; float32 on the CPU, width up to 4, differentiable once."""
    y: Tensor = torch.ops.hymate.causal_conv1d_silu(x, weight, bias)
    return y


def _prepare(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    return (
        sequence_rows(x),
        parameter_rows(weight.squeeze(-2), 2),
        None if bias is None else parameter_rows(bias, 1),
    )


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x.new_empty(x.shape)
    launch(_native.convolution_forward, *_prepare(x, weight, bias), y)
    return y


def _forward_shapes(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


def _backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = _gradients(x, weight, bias)
    launch(
        _native.convolution_backward,
        sequence_rows(dy),
        *_prepare(x, weight, bias),
        dx,
        dweight,
        None if bias is None else dbias,
    )
    return dx, dweight, dbias


def _backward_shapes(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(x, weight, bias)


def _gradients(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        x.new_empty(weight.shape),
        x.new_empty(0 if bias is None else bias.shape),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = torch.ops.hymate.causal_conv1d_silu_backward(dy, x, weight, bias)
    return dx, dweight, None if bias is None else dbias


register_operator(
    "causal_conv1d_silu",
    "(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    kernel=_forward,
    shapes=_forward_shapes,
)
register_operator(
    "causal_conv1d_silu_backward",
    "(Tensor dy, Tensor x, Tensor weight, Tensor? bias) -> (Tensor, Tensor, Tensor)",
    kernel=_backward,
    shapes=_backward_shapes,
)
register_gradient("causal_conv1d_silu", remember=_remember, gradient=_differentiate)
