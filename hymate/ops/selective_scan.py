"""The selective scan of a Mamba block: one signature in front of three backends.

    with torch.no_grad():
        y = selective_scan(u, delta, A, B, C, D, z=z, delta_bias=bias, delta_softplus=True)

**Per-sample gradients.** `A`, `D` and `delta_bias` may be given once per sample, with the batch in
front: `A.expand(batch, -1, -1)` copies nothing, and the gradient that arrives at the expanded tensor is
each sample's own, at no extra cost. A module that holds `A` and returns that expansion is thus a leaf
whose gradient sampler (Opacus) only hands on what it is given. `per_sample_gradients` does the same for
one call at hand.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hymate.ops.backend import Backend, choose_backend, describe_backend
from hymate.ops.scan_torch import selective_scan_torch

__all__ = ["SampleGradients", "describe_backend", "per_sample_gradients", "selective_scan"]


def selective_scan(
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
    """Selective scan (Mamba, arXiv 2312.00752, algorithm 2), channels-last.

    h_t = exp(step_t A) h_{t-1} + step_t B_t u_t and y_t = (<C_t, h_t> + D u_t) * silu(z_t), from h = 0,
    with step = softplus(delta + delta_bias), or delta + delta_bias without `delta_softplus`.

    Shapes: u, delta, z and the result (batch, length, channels); A (channels, state); B and C
    (batch, length, state); D and delta_bias (channels,). A, D and delta_bias may have the batch in front.
    One dtype and device for all. Strides are free; the innermost being 1 spares a copy. Which backend
    runs: `describe_backend`. Raises `InputFault` for a HYMATE_SCAN that cannot be used, ValueError for
    shapes that do not fit.
    """
    _require_shapes(u, delta, A, B, C, D, z, delta_bias)
    backend = choose_backend(u.device, u.dtype).backend
    if backend is Backend.NATIVE:
        from hymate.ops.scan_native import selective_scan_native

        return selective_scan_native(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    if backend is Backend.CUDA:
        from hymate.ops.scan_cuda import selective_scan_cuda

        return selective_scan_cuda(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return selective_scan_torch(u, delta, A, B, C, D, z, delta_bias, delta_softplus)


class SampleGradients(NamedTuple):
    """Gradients with one row per sample: A (batch, channels, state), D and delta_bias (batch, channels)."""

    A: Tensor
    D: Tensor | None
    delta_bias: Tensor | None


def per_sample_gradients(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> SampleGradients:
    """Gradients of sum(dy * selective_scan(...)) with respect to A, D and delta_bias, sample by sample.

    A, D and delta_bias are given once, for the batch; dy has the shape of u. Runs the scan forward and
    backward in whichever backend `selective_scan` would use.
    """
    batch = len(u)

    def rows(parameter: Tensor) -> Tensor:
        return parameter.detach().expand(batch, *parameter.shape).requires_grad_()

    with torch.enable_grad():
        A_rows = rows(A)
        D_rows = None if D is None else rows(D)
        bias_rows = None if delta_bias is None else rows(delta_bias)
        u, delta, B, C = u.detach(), delta.detach(), B.detach(), C.detach()
        z = None if z is None else z.detach()
        y = selective_scan(u, delta, A_rows, B, C, D_rows, z, bias_rows, delta_softplus)
        wanted = [row for row in (A_rows, D_rows, bias_rows) if row is not None]
        found = list(torch.autograd.grad(y, wanted, dy))
    dbias = None if bias_rows is None else found.pop()
    dD = None if D_rows is None else found.pop()
    return SampleGradients(found.pop(), dD, dbias)


def _require_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.dim() != 3 or A.dim() not in {2, 3}:
        raise ValueError(
            f"u must be (batch, length, channels), A ([batch,] channels, state): {u.shape}, {A.shape}"
        )
    batch, length, channels = u.shape
    states = A.shape[-1]
    wide, narrow = (batch, length, channels), (batch, length, states)
    shared: tuple[tuple[int, ...], ...] = ((channels,), (batch, channels))
    expected: tuple[tuple[str, Tensor | None, tuple[tuple[int, ...], ...]], ...] = (
        ("delta", delta, (wide,)),
        ("A", A, ((channels, states), (batch, channels, states))),
        ("B", B, (narrow,)),
        ("C", C, (narrow,)),
        ("D", D, shared),
        ("z", z, (wide,)),
        ("delta_bias", delta_bias, shared),
    )
    for name, tensor, shapes in expected:
        if tensor is not None and tuple(tensor.shape) not in shapes:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected {' or '.join(map(str, shapes))}"
            )
