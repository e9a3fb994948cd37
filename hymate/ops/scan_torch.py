"""The selective scan in plain torch: the reference that every kernel is tested against, and the fallback.

Symbols (Mamba, arXiv 2312.00752, section 3.2 and algorithm 2; ZOH for A, Euler for B):

    b, l, c, n   batch, length, channels, state
    u, y         (b, l, c)   input and output of the scan
    delta        (b, l, c)   step size, after bias and softplus
    A            (c, n)      decay rate of each state, negative in Mamba
    B, C         (b, l, n)   how the input enters the state, how the state is read
    h            (b, c, n)   state:  h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,  y_t = <C_t, h_t> + D u_t
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan_torch(
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
    """Selective scan by torch operations only: any device, any float dtype, differentiable twice.

    Shapes as in `hymate.ops.selective_scan.selective_scan`. The sequence is cut into about sqrt(l)
    chunks that advance side by side from a zero state; then the chunks' last states are carried
    from one to the next. That is 2 sqrt(l) steps of Python instead of l. Autograd keeps every
    state, so memory is b l c n elements, several times over.
    """
    length = u.shape[1]
    step = delta if delta_bias is None else delta + _over_length(delta_bias)
    if delta_softplus:
        step = F.softplus(step)

    steps = max(1, math.isqrt(length))
    chunks = max(1, -(-length // steps))
    # A padded position has step 0: it neither decays the state nor adds to it.
    padding = chunks * steps - length
    step_, drive_, B_, C_ = (
        F.pad(sequence, (0, 0, 0, padding)).reshape(len(sequence), chunks, steps, sequence.shape[2])
        for sequence in (step, step * u, B, C)
    )
    y = _scan_chunks(step_, drive_, A, B_, C_).flatten(1, 2)[:, :length]

    if D is not None:
        y = y + u * _over_length(D)
    return y if z is None else y * F.silu(z)


def _scan_chunks(step: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """<C_t, h_t> for step, drive (b, k, s, c) and B, C (b, k, s, n): k chunks of s steps."""
    rate = A if A.dim() == 2 else A[:, None, None]  # (c, n) or one per sample (b, 1, 1, c, n)
    decay = torch.exp(step.unsqueeze(-1) * rate)  # (b, k, s, c, n)
    enter = drive.unsqueeze(-1) * B.unsqueeze(-2)  # (b, k, s, c, n)

    state = torch.zeros_like(enter[:, :, 0])  # (b, k, c, n)
    from_zero = []
    for decay_t, enter_t in zip(decay.unbind(2), enter.unbind(2), strict=True):
        state = decay_t * state + enter_t
        from_zero.append(state)
    local = torch.stack(from_zero, dim=2)  # (b, k, s, c, n)

    # What is left, at each position, of the state that the chunk began with.
    reach = torch.exp(step.cumsum(2).unsqueeze(-1) * rate)  # (b, k, s, c, n)
    carry = torch.zeros_like(local[:, 0, 0])  # (b, c, n)
    before = []
    for reach_end, local_end in zip(reach[:, :, -1].unbind(1), local[:, :, -1].unbind(1), strict=True):
        before.append(carry)
        carry = reach_end * carry + local_end
    states = local + reach * torch.stack(before, dim=1).unsqueeze(2)
    return torch.einsum("bkscn,bksn->bksc", states, C)


def _over_length(parameter: Tensor) -> Tensor:
    """(c,) as it is; one row per sample (b, c) as (b, 1, c)."""
    return parameter if parameter.dim() == 1 else parameter.unsqueeze(1)
