"""Causal depthwise convolution followed by SiLU, as it precedes the scan in a Mamba block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def causal_conv1d_torch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`causal_conv1d_silu` by torch operations only."""
    channels, _, width = weight.shape
    padded = F.pad(x.transpose(1, 2), (width - 1, 0))
    return F.silu(F.conv1d(padded, weight, bias, groups=channels)).transpose(1, 2)


def causal_conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """SiLU of the causal depthwise convolution: x, y (b, l, c); weight (c, 1, width); bias (c,)."""
    return causal_conv1d_torch(x, weight, bias)
