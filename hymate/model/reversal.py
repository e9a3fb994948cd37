"""A stay's observations from the last to the first, its padding where it was.

B, L, d      batch, padded length, width
order        (B, L)      position in the stay that comes to stand at each position
"""

from __future__ import annotations

import torch
from torch import Tensor


def reversed_order(mask: Tensor) -> Tensor:
    """mask (B, L), True where an observation is, on the left -> order (B, L); its own inverse.

    >>> reversed_order(torch.tensor([[True, True, True, False], [False, False, False, False]])).tolist()
    [[2, 1, 0, 3], [0, 1, 2, 3]]
    """
    at = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, mask.sum(dim=1, keepdim=True) - 1 - at, at)


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """x (B, L, d), order (B, L) -> (B, L, d)."""
    return x.gather(1, order.unsqueeze(-1).expand_as(x))
