"""The C++ scan as operators of torch: `torch.ops.hymate.selective_scan` and its backward.

Registered with torch.library: kernels for the CPU, shapes for tracing (fake kernels) and autograd.
Importing this module needs the extension; `hymate.ops.selective_scan` does so only when it is there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hymate.ops import _native
from hymate.ops.operators import launch, parameter_rows, register_gradient, register_operator, sequence_rows

sym_max: Any = torch.sym_max  # untyped in torch
_STEPS, _LANES = 16, 16  # one checkpoint each 16 positions, channels padded to 16: see csrc/kernels.h


def selective_scan_native(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Selective scan by the C++ kernel; float32 on the CPU, differentiable once."""
    save = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (u, delta, A, B, C, D, z, delta_bias)
    )
    y: Tensor = torch.ops.hymate.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save)[0]
    return y


def _prepare(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    return (
        sequence_rows(u),
        sequence_rows(delta),
        parameter_rows(A, 2),
        sequence_rows(B),
        sequence_rows(C),
        None if D is None else parameter_rows(D, 1),
        None if z is None else sequence_rows(z),
        None if delta_bias is None else parameter_rows(delta_bias, 1),
    )


def _checkpoints(u: Tensor, A: Tensor, save: bool) -> Tensor:
    """Memory for the saved states; its size is that of u where the state is 16."""
    batch, length, channels = u.shape
    if not save:
        return u.new_empty(0)
    intervals = sym_max(length - 1, 0) // _STEPS
    strips = (channels + _LANES - 1) // _LANES
    # The lanes that pad the last strip are not all written.
    new = u.new_zeros if channels % _LANES else u.new_empty
    return new(batch * strips * intervals * A.shape[-1] * _LANES)


def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    y = u.new_empty(u.shape)
    checkpoints = _checkpoints(u, A, save)
    launch(
        _native.scan_forward,
        *_prepare(u, delta, A, B, C, D, z, delta_bias),
        delta_softplus,
        y,
        checkpoints if save else None,
    )
    return y, checkpoints


def _forward_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), _checkpoints(u, A, save)


def _gradients(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Memory for the gradients, contiguous whatever the inputs' strides."""
    return (
        u.new_empty(u.shape),
        u.new_empty(delta.shape),
        u.new_empty(A.shape),
        u.new_empty(B.shape),
        u.new_empty(C.shape),
        u.new_empty(0 if D is None else D.shape),
        u.new_empty(0 if z is None else z.shape),
        u.new_empty(0 if delta_bias is None else delta_bias.shape),
    )


def _backward(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    checkpoints: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    out = _gradients(u, delta, A, B, C, D, z, delta_bias)
    du, ddelta, dA, dB, dC, dD, dz, ddelta_bias = out
    launch(
        _native.scan_backward,
        sequence_rows(dy),
        *_prepare(u, delta, A, B, C, D, z, delta_bias),
        delta_softplus,
        checkpoints,
        du,
        ddelta,
        dA,
        dB,
        dC,
        None if D is None else dD,
        None if z is None else dz,
        None if delta_bias is None else ddelta_bias,
    )
    return out


def _backward_shapes(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    checkpoints: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _gradients(u, delta, A, B, C, D, z, delta_bias)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, delta_softplus, save = inputs
    checkpoints = output[1]
    ctx.mark_non_differentiable(checkpoints)
    ctx.set_materialize_grads(False)  # else a zero gradient as large as the checkpoints is filled in
    ctx.save_for_backward(*tensors, checkpoints)
    ctx.delta_softplus, ctx.save = delta_softplus, save


def _differentiate(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, checkpoints = ctx.saved_tensors
    if dy is None:
        return (None,) * (len(inputs) + 2)
    if not ctx.save:
        checkpoints = torch.ops.hymate.selective_scan(*inputs, ctx.delta_softplus, True)[1]
    out = torch.ops.hymate.selective_scan_backward(dy, *inputs, ctx.delta_softplus, checkpoints)
    given = zip(inputs, out, strict=True)
    return (*(None if tensor is None else gradient for tensor, gradient in given), None, None)


_INPUTS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias"

# `save` asks for what the backward reads (states every 16 positions); else that output is empty.
register_operator(
    "selective_scan",
    f"({_INPUTS}, bool delta_softplus, bool save) -> (Tensor y, Tensor checkpoints)",
    kernel=_forward,
    shapes=_forward_shapes,
)
# Gradients in the order of the inputs; empty where an input is absent.
register_operator(
    "selective_scan_backward",
    f"(Tensor dy, {_INPUTS}, bool delta_softplus, Tensor checkpoints) -> ({', '.join(['Tensor'] * 8)})",
    kernel=_backward,
    shapes=_backward_shapes,
)
register_gradient("selective_scan", remember=_remember, gradient=_differentiate)
