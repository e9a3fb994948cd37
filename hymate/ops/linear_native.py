"""The C++ linear layer as operators of torch, as `scan_native` does for the scan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hymate.ops import _native
from hymate.ops.operators import launch, register_gradient, register_operator, sequence_rows


def linear_native(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` by the C++ kernel; float32 on the CPU, differentiable once."""
    y: Tensor = torch.ops.hymate.linear(x.reshape(-1, x.shape[-1]), weight, bias)
    return y.view(*x.shape[:-1], weight.shape[0])


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x.new_empty(x.shape[0], weight.shape[0])
    offset = None if bias is None else bias.contiguous()
    launch(_native.linear_forward, sequence_rows(x), weight.contiguous(), offset, y)
    return y


def _forward_shapes(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _backward_input(dy: Tensor, weight: Tensor) -> Tensor:
    dx = dy.new_empty(dy.shape[0], weight.shape[1])
    launch(_native.linear_backward_input, sequence_rows(dy), weight.contiguous(), dx)
    return dx


def _backward_input_shapes(dy: Tensor, weight: Tensor) -> Tensor:
    return dy.new_empty(dy.shape[0], weight.shape[1])


def _backward_weight(dy: Tensor, x: Tensor, with_bias: bool) -> tuple[Tensor, Tensor]:
    dweight, dbias = _backward_weight_shapes(dy, x, with_bias)
    launch(
        _native.linear_backward_weight,
        sequence_rows(dy),
        sequence_rows(x),
        dweight,
        dbias if with_bias else None,
    )
    return dweight, dbias


def _backward_weight_shapes(dy: Tensor, x: Tensor, with_bias: bool) -> tuple[Tensor, Tensor]:
    outputs = dy.shape[1]
    return dy.new_empty(outputs, x.shape[1]), dy.new_empty(outputs if with_bias else 0)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.with_bias = bias is not None


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    dx = torch.ops.hymate.linear_backward_input(dy, weight) if ctx.needs_input_grad[0] else None
    if not any(ctx.needs_input_grad[1:]):
        return dx, None, None
    dweight, dbias = torch.ops.hymate.linear_backward_weight(dy, x, ctx.with_bias)
    return dx, dweight, dbias if ctx.with_bias else None


register_operator(
    "linear",
    "(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    kernel=_forward,
    shapes=_forward_shapes,
)
register_operator(
    "linear_backward_input",
    "(Tensor dy, Tensor weight) -> Tensor",
    kernel=_backward_input,
    shapes=_backward_input_shapes,
)
register_operator(
    "linear_backward_weight",
    "(Tensor dy, Tensor x, bool with_bias) -> (Tensor, Tensor)",
    kernel=_backward_weight,
    shapes=_backward_weight_shapes,
)
register_gradient("linear", remember=_remember, gradient=_differentiate)
