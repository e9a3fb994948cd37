"""Scale what random bits keep, zero the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from hymate.ops.backend import Backend, choose_backend


def keep_above(x: Tensor, bits: Tensor, threshold: int, scale: float) -> Tensor:
    """x * scale where bits >= threshold, else 0: x of any shape, bits int16 with as many elements."""
    if choose_backend(x.device, x.dtype).backend is Backend.NATIVE:
        from hymate.ops.dropout_native import keep_above_native

        return keep_above_native(x, bits, threshold, scale)
    return torch.where(bits.view(x.shape) >= threshold, x * scale, 0.0)
