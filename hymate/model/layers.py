"""torch's layers on our operators: same parameters, same names, same first values.

Each is a type of its own, so per-sample gradients need their own registration (Opacus looks up the
exact type): the samplers for `nn.Linear` and `nn.RMSNorm` serve.
"""

from __future__ import annotations

from torch import Tensor, nn

from hymate.ops.linear import linear
from hymate.ops.rms_norm import rms_norm

RMS_EPSILON = 1e-5


class Linear(nn.Linear):
    """x W^T + bias."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs)."""
        return linear(x, self.weight, self.bias)


class RMSNorm(nn.RMSNorm):
    """w x / sqrt(mean(x^2) + RMS_EPSILON) over the last dimension."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=RMS_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, d) -> (B, L, d)."""
        return rms_norm(x, self.weight, RMS_EPSILON)
