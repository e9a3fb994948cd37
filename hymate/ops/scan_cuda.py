"""The selective scan by mamba-ssm's CUDA kernel (https://github.com/state-spaces/mamba, Apache-2.0)."""

from __future__ import annotations

from torch import Tensor


def selective_scan_cuda(
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
    """Selective scan by `selective_scan_fn`, which is channels-first: u (b, c, l), B and C (b, groups, n, l).

    Parameters given per sample use its groups: the batch is folded into the channels, each sample is
    a group with its own B and C, and so has its own A, D and bias.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    batch, length, channels = u.shape
    per_sample = A.dim() == 3 or any(p is not None and p.dim() == 2 for p in (D, delta_bias))

    def sequence(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        first = tensor.transpose(1, 2)
        return first.reshape(1, batch * channels, length) if per_sample else first

    def grouped(tensor: Tensor) -> Tensor:
        first = tensor.transpose(1, 2).contiguous()
        return first.unsqueeze(0) if per_sample else first.unsqueeze(1)

    def parameter(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        rows = tensor.expand(batch, channels) if per_sample else tensor
        return rows.reshape(-1).float()

    rates = A.expand(batch, *A.shape[-2:]).flatten(0, 1) if per_sample else A
    y: Tensor = selective_scan_fn(
        sequence(u),
        sequence(delta),
        rates.float(),
        grouped(B),
        grouped(C),
        parameter(D),
        z=sequence(z),
        delta_bias=parameter(delta_bias),
        delta_softplus=delta_softplus,
    )
    return y.reshape(batch, channels, length).transpose(1, 2)
