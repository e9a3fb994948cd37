"""Top-k sparsification: the largest entries of an array, and where they were (Stich et al. 2018,
arXiv 1809.07599; the error feedback that makes it converge is in `strategies.compression`).

Positions travel as bytes, in whichever of two forms is shorter for an array of that size, so that both
ends know the form: one bit for every entry, or one number for every entry sent.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def kept_of(size: int, share: float) -> int:
    """How many of `size` entries are sent: the share, rounded up, and at least one.

    >>> kept_of(10, 0.1), kept_of(11, 0.1), kept_of(3, 0.01), kept_of(0, 0.5)
    (1, 2, 1, 0)
    """
    return min(size, max(1, math.ceil(share * size - 1e-9)))


def largest(values: NDArray[np.floating], kept: int) -> NDArray[np.intp]:
    """Positions (kept,) of the entries (n,) of largest magnitude, ascending; of equal ones the first."""
    order = np.argsort(-np.abs(values), kind="stable")
    return np.sort(order[:kept])


def bytes_of_positions(size: int, kept: int) -> int:
    """Length of what `written` gives."""
    return min(_bits(size), kept * _number(size).itemsize)


def written(positions: NDArray[np.intp], size: int) -> NDArray[np.uint8]:
    """Positions among `size` entries as bytes."""
    number = _number(size)
    if _bits(size) <= len(positions) * number.itemsize:
        mask = np.zeros(size, dtype=np.bool_)
        mask[positions] = True
        return np.packbits(mask)
    return np.frombuffer(positions.astype(number).tobytes(), dtype=np.uint8)


def read(content: NDArray[np.uint8], size: int, kept: int) -> NDArray[np.intp] | None:
    """The opposite of `written`; None where the bytes are not `kept` ascending positions below `size`.

    Takes memory for `size` entries at most, whatever the bytes hold.
    """
    number = _number(size)
    if content.shape != (bytes_of_positions(size, kept),):
        return None
    if _bits(size) <= kept * number.itemsize:
        bits = np.unpackbits(content)
        found = np.flatnonzero(bits)
    else:
        # In 64 bits with a sign: unsigned differences would never be negative.
        found = np.frombuffer(content.tobytes(), dtype=number).astype(np.int64)
    if len(found) != kept or (kept and not 0 <= found[-1] < size) or np.any(np.diff(found) <= 0):
        return None
    return found.astype(np.intp)


def _bits(size: int) -> int:
    return -(-size // 8)


def _number(size: int) -> np.dtype[np.unsignedinteger]:
    """Little-endian, whatever the machine."""
    return np.dtype("<u2" if size <= 1 << 16 else "<u4" if size <= 1 << 32 else "<u8")
