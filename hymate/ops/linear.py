"""A linear layer over many positions: tall rows times a small weight."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hymate.ops.backend import Backend, choose_backend


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias: x (..., inputs), weight (outputs, inputs), bias (outputs,) -> (..., outputs).

    The backend follows the scan's choice. For these shapes (thousands of rows, weights of a few
    thousand elements) the C++ kernel does more than twice the work per second of torch's BLAS where
    that does not use the processor's widest vectors. Differentiable once there, else as torch is.
    """
    if choose_backend(x.device, x.dtype).backend is Backend.NATIVE and weight.dtype == x.dtype:
        from hymate.ops.linear_native import linear_native

        return linear_native(x, weight, bias)
    return F.linear(x, weight, bias)
