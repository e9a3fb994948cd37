"""RMSNorm (arXiv 1910.07467) over the last dimension."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hymate.ops.backend import Backend, choose_backend


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """w x / sqrt(mean(x^2) + epsilon): x (batch, length, width), weight (width,) -> the shape of x.

    For per-sample gradients the weight may have the batch in front, as in `selective_scan`. The backend
    follows the scan's choice: torch's own takes a pass over memory for each arithmetic step on the CPU.
    """
    if choose_backend(x.device, x.dtype).backend is Backend.NATIVE:
        from hymate.ops.rms_norm_native import rms_norm_native

        return rms_norm_native(x, weight, epsilon)
    if weight.dim() == 1:
        return F.rms_norm(x, weight.shape, weight, epsilon)
    return F.rms_norm(x, weight.shape[1:], None, epsilon) * weight.unsqueeze(1)
