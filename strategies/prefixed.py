"""Arrays of several kinds in one mapping, told apart by a prefix of their names: so states are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Kept = TypeVar("Kept")


def prefixed(prefix: str, arrays: Mapping[str, Kept]) -> dict[str, Kept]:
    """The arrays, each with `prefix` before its name."""
    return {prefix + name: array for name, array in arrays.items()}


def under(prefix: str, arrays: Mapping[str, Kept]) -> dict[str, Kept]:
    """Those with `prefix` before their name, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def numbers_under(prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, float]:
    """The same, where each array holds one number."""
    return {name: float(array.item()) for name, array in under(prefix, arrays).items()}
