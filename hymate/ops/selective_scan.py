"""The selective scan of a Mamba block: one signature in front of three backends."""

from __future__ import annotations

from torch import Tensor

from hymate.ops.scan_torch import selective_scan_torch


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
    """Selective scan; channels-last: u, delta, z, y (b, l, c); A (c, n); B, C (b, l, n); D, delta_bias (c,)."""
    return selective_scan_torch(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
