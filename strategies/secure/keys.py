"""Keys, shares of secrets and seals: Flower's primitives, put together as the protocol needs them.

Key pairs are on the curve P-384; two sites agree on a seed by ECDH and HKDF-SHA256; what one site tells
another past the coordinator is sealed by Fernet (AES-128-CBC with HMAC); Shamir's scheme parts secrets.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, generate_key_pairs, public_key_to_bytes

CURVE = ec.SECP384R1()
SCALAR_BYTES = 48


class NotOpened(Exception):
    """What was received is no key, no seal of that sender's, or no set of shares of one secret."""


@dataclass(frozen=True)
class PrivateKey:
    """One half of a key pair, as the number that it is: a sixth of the bytes of a PEM file, so that its
    shares are made and put together in a sixth of the time."""

    number: bytes
    """`SCALAR_BYTES`, big-endian."""

    @classmethod
    def make(cls) -> PrivateKey:
        private, _ = generate_key_pairs()
        return cls(private.private_numbers().private_value.to_bytes(SCALAR_BYTES, "big"))

    @property
    def public(self) -> str:
        """The other half, PEM."""
        return public_key_to_bytes(self._key.public_key()).decode("ascii")

    def agreed_with(self, public: str) -> bytes:
        """What only the owners of the two private keys know, as Fernet writes keys. Raises `NotOpened`."""
        try:
            return generate_shared_key(self._key, _public(public))
        except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
            raise NotOpened(f"no public key of the curve ({type(fault).__name__})") from None

    def seed_with(self, public: str) -> bytes:
        """The same as 32 bytes. Raises `NotOpened`."""
        return urlsafe_b64decode(self.agreed_with(public))

    @property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        try:
            return ec.derive_private_key(int.from_bytes(self.number, "big"), CURVE)
        except ValueError:
            raise NotOpened("no private key of the curve") from None


def _public(pem: str) -> ec.EllipticCurvePublicKey:
    key = bytes_to_public_key(pem.encode("ascii"))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("a key of another kind")
    return key


def parted(secret: bytes, threshold: int, shares: int) -> list[str]:
    """Shares (hex) of a secret, of which any `threshold` together give it back, and fewer tell nothing."""
    return [share.hex() for share in create_shares(secret, threshold, shares)]


def together(shares: list[str]) -> bytes:
    """The secret. Raises `NotOpened` where they are no shares of one."""
    try:
        return combine_shares([bytes.fromhex(share) for share in shares])
    except (ValueError, IndexError):
        raise NotOpened("shares that do not fit each other") from None


def sealed(key: bytes, text: str) -> str:
    return encrypt(key, text.encode()).decode("ascii")


def opened(key: bytes, token: str) -> str:
    """What was sealed under this key. Raises `NotOpened`."""
    try:
        return decrypt(key, token.encode()).decode()
    except (InvalidToken, ValueError):
        raise NotOpened("a seal under another key") from None
