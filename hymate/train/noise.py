"""Normal noise that nobody can tell without the key.

torch's own generator on the CPU is a Mersenne twister started from 32 bits: who sees some of its noise, or
tries all starts, can subtract it. Here a stream cipher under a secret key of 32 bytes takes its place. The
same key gives the same bits, so a round that is repeated is not a second release.
"""

from __future__ import annotations

import hashlib
import hmac
import math

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

KEY_BYTES = 32
BITS = 53  # of a float64's mantissa
SUMMED = 4


def derived_key(key: bytes, *purpose: object) -> bytes:
    """HMAC-SHA256 of the purpose's parts: 32 bytes that tell nothing of `key` or of another purpose's."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return hmac.new(key, "/".join(map(str, purpose)).encode(), hashlib.sha256).digest()


class SecretNoise:
    """Standard normal numbers of one key, one after the other."""

    def __init__(self, key: bytes) -> None:
        # The key is used for this one stream alone, so the nonce may be constant.
        self._stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def normal(self, count: int) -> Tensor:
        """The next `count` numbers, float64, on the CPU.

        Each is the sum of four draws, halved: from the sum of several, unlike from one, the gaps between
        floating-point numbers do not tell what was added to (Holohan and Braghin 2021, arXiv 2107.10138;
        Opacus' `secure_mode` does the same).
        """
        pairs = SUMMED * count // 2
        raw = np.frombuffer(self._stream.update(bytes(16 * pairs)), np.int64)
        # int64 shifted arithmetically: the mask takes the sign's copies away.
        bits = torch.from_numpy(raw >> 11) & (2**BITS - 1)
        uniform = bits.double().add_(1.0).mul_(2.0**-BITS)  # (0, 1]
        radius = uniform[:pairs].log_().mul_(-2.0).sqrt_()  # Box and Muller 1958
        angle = uniform[pairs:].mul_(2.0 * math.pi)
        draws = torch.cat([radius * angle.cos(), radius * angle.sin()])
        return draws.view(SUMMED, count).sum(0).div_(math.sqrt(SUMMED))
