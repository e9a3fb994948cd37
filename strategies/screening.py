"""Updates are checked before they are folded: one bad reply costs that site its round, not the study."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.generic]]


def fault_of(update: Weights, reference: Weights, weight: float) -> str | None:
    """Why an update cannot be folded into weights like `reference`; None where it can."""
    if not (np.isfinite(weight) and weight > 0):
        return f"weight {weight} is not a positive number"
    strange = sorted(set(update) ^ set(reference))
    if strange:
        return f"{len(strange)} arrays missing or unknown, first: {strange[0]}"
    for name, array in update.items():
        if array.shape != reference[name].shape or array.dtype != reference[name].dtype:
            expected = reference[name]
            return (
                f"{name} is {array.dtype}{list(array.shape)}, expected {expected.dtype}{list(expected.shape)}"
            )
        if not np.isfinite(array).all():
            return f"{name} holds values that are not finite"
    return None
