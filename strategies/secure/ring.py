"""Numbers in a ring, and masks over it.

    n    sites of a sum            x    a number, |x| <= limit
    R    2^bits, the ring          S    floor(2^(bits - 2) / n)

A number is sent as q = round(x / limit * S) mod R. |sum of n q| <= n S <= R / 4, so no sum of n sites
leaves the ring; it is off by at most n / 2 in q, which is n limit / (2 S), about 2 n^2 limit / R.

A mask is the key stream of ChaCha20 (RFC 8439), read as numbers of the ring: uniform, so that what is
masked is uniform, too, whatever it holds. (Flower's own `pseudo_rand_gen` folds its seed to 32 bits and draws
from a Mersenne twister: whoever tries all seeds takes such a mask away.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

Residues = NDArray[np.unsignedinteger]
"""Numbers of a ring of 2^16, 2^32 or 2^64: numpy's arithmetic on them wraps around as it must."""
Vector = dict[str, Residues]
"""What one site adds to a sum, by part; a part is one ring's."""


class OutOfBounds(ValueError):
    """Numbers that cannot be part of a sum, or come of one."""


def encoded(values: NDArray[np.float64], limit: float, bits: int, sites: int) -> Residues:
    """Numbers, (size,), as residues that `sites` sites may sum up; those beyond `limit` are clipped."""
    scaled = np.rint(np.clip(values / limit, -1.0, 1.0) * _steps(bits, sites))
    return scaled.astype(np.int64).astype(f"u{bits // 8}")


def decoded(total: Residues, limit: float, bits: int, sites: int) -> NDArray[np.float64]:
    """The sum of numbers whose residues sum up to `total`."""
    signed = total.astype(f"i{bits // 8}")
    return signed.astype(np.float64) * (limit / _steps(bits, sites))


def _steps(bits: int, sites: int) -> int:
    return (1 << (bits - 2)) // sites


def mask(seed: bytes, like: Mapping[str, Residues]) -> Vector:
    """Uniform residues in the shapes and rings of `like`; the same for the same 32 bytes.

    A seed is used once: two vectors under one mask would give their difference away.
    """
    drawn = {}
    for part, name in enumerate(sorted(like)):
        nonce = bytes(8) + part.to_bytes(8, "little")
        stream = Cipher(algorithms.ChaCha20(seed, nonce), mode=None).encryptor()
        drawn[name] = np.frombuffer(stream.update(bytes(like[name].nbytes)), dtype=like[name].dtype)
    return drawn


def added(a: Mapping[str, Residues], b: Mapping[str, Residues], sign: int = 1) -> Vector:
    """a + b, or a - b with sign -1, in each part's ring."""
    return {name: a[name] + b[name] if sign > 0 else a[name] - b[name] for name in a}


def masked(vector: Mapping[str, Residues], site: str, seed: bytes, pairs: Mapping[str, bytes]) -> Vector:
    """What a site sends: its numbers under its own mask and one for each other site of the sum.

    Args:
        seed: of its own mask.
        pairs: other site -> the seed that the two have in common. The one whose name comes first adds the
            mask, the other one takes it away: in the sum of both it is gone.
    """
    hidden = added(vector, mask(seed, vector))
    for other, common in pairs.items():
        hidden = added(hidden, mask(common, vector), 1 if site < other else -1)
    return hidden


def unmasked(
    total: Mapping[str, Residues],
    seeds: Mapping[str, bytes],
    pairs: Mapping[tuple[str, str], bytes],
) -> Vector:
    """The sum of what the survivors hold out of the sum of what they sent.

    Args:
        seeds: survivor -> the seed of its own mask.
        pairs: (survivor, dropped site) -> the seed the two have in common, whose mask nothing has cancelled.
    """
    found = dict(total)
    for seed in seeds.values():
        found = added(found, mask(seed, total), -1)
    for (survivor, dropped), common in pairs.items():
        found = added(found, mask(common, total), -1 if survivor < dropped else 1)
    return found
