"""The C++ attention as operators of torch, as `scan_native` does for the scan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hymate.ops import _native
from hymate.ops.operators import launch, register_gradient, register_operator, sequence_rows

_EVERYWHERE = 2**62


def attention_native(qkv: Tensor, lengths: Tensor, heads: int, window: int | None) -> Tensor:
    """`attention` by the C++ kernel; float32 on the CPU, differentiable once."""
    reach = _EVERYWHERE if window is None else window
    y: Tensor = torch.ops.hymate.attention(qkv, lengths, heads, reach)[0]
    return y


def _forward(qkv: Tensor, lengths: Tensor, heads: int, window: int) -> tuple[Tensor, Tensor]:
    y, logsum = _forward_shapes(qkv, lengths, heads, window)
    launch(
        _native.attention_forward,
        sequence_rows(qkv),
        lengths.contiguous(),
        heads,
        window,
        y,
        logsum,
    )
    return y, logsum


def _forward_shapes(qkv: Tensor, lengths: Tensor, heads: int, window: int) -> tuple[Tensor, Tensor]:
    batch, length, wide = qkv.shape
    return qkv.new_empty(batch, length, wide // 3), qkv.new_zeros(batch, heads, length)


def _backward(
    dy: Tensor, qkv: Tensor, lengths: Tensor, heads: int, window: int, y: Tensor, logsum: Tensor
) -> Tensor:
    dqkv = qkv.new_empty(qkv.shape)
    launch(
        _native.attention_backward,
        sequence_rows(dy),
        sequence_rows(qkv),
        lengths.contiguous(),
        heads,
        window,
        y.contiguous(),
        logsum.contiguous(),
        dqkv,
    )
    return dqkv


def _backward_shapes(
    dy: Tensor, qkv: Tensor, lengths: Tensor, heads: int, window: int, y: Tensor, logsum: Tensor
) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, lengths, ctx.heads, ctx.window = inputs
    y, logsum = output
    ctx.mark_non_differentiable(logsum)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(qkv, lengths, y, logsum)


def _differentiate(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return None, None, None, None
    qkv, lengths, y, logsum = ctx.saved_tensors
    dqkv = torch.ops.hymate.attention_backward(dy, qkv, lengths, ctx.heads, ctx.window, y, logsum)
    return dqkv, None, None, None


register_operator(
    "attention",
    "(Tensor qkv, Tensor lengths, int heads, int window) -> (Tensor, Tensor)",
    kernel=_forward,
    shapes=_forward_shapes,
)
register_operator(
    "attention_backward",
    "(Tensor dy, Tensor qkv, Tensor lengths, int heads, int window, Tensor y, Tensor logsum) -> Tensor",
    kernel=_backward,
    shapes=_backward_shapes,
)
register_gradient("attention", remember=_remember, gradient=_differentiate)
