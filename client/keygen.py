"""The key by which the coordinator knows a site: elliptic curve P-384, the kind Flower's nodes use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hymate.errors import InputFault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PRIVATE_MODE = 0o600


@dataclass(frozen=True)
class SiteKey:
    """A key pair on disk."""

    private: Path
    public: Path
    fingerprint: str


def make_key(folder: Path, name: str) -> SiteKey:
    """Write `<name>.key` (its owner alone may read it) and `<name>.pub` into `folder`.

    Raises:
        InputFault: one of the files exists (a key is never overwritten), or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise InputFault(path, "exists already", "keep using it, or choose another --out or --name")
    key = ec.generate_private_key(ec.SECP384R1())
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    line = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(private, secret, PRIVATE_MODE)
        try:
            _write_new(public, line + f" {name}\n".encode(), 0o644)
        except BaseException:
            private.unlink()  # half a pair is no pair
            raise
    except OSError as fault:
        raise InputFault(folder, f"cannot be written to ({fault.strerror})", "choose another --out") from None
    return SiteKey(private, public, fingerprint_of(line))


def public_key_of(path: Path) -> bytes:
    """The public half of a private key file, as one OpenSSH line without a comment.

    Raises:
        InputFault: the file is missing, unreadable or no key of this kind.
    """
    from cryptography.hazmat.primitives import serialization as form

    return private_key_of(path).public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)


def private_key_of(path: Path) -> EllipticCurvePrivateKey:
    """The key of a private key file.

    Raises:
        InputFault: the file is missing, unreadable or no key of this kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    remedy = "make one with 'hymate-client keygen'"
    try:
        secret = path.read_bytes()
    except OSError as fault:
        raise InputFault(path, f"cannot be read ({fault.strerror})", f"correct `key`, or {remedy}") from None
    try:
        key = form.load_ssh_private_key(secret, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputFault(path, "is no unencrypted private key in OpenSSH form", remedy) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise InputFault(path, "is no key of elliptic curve P-384", remedy)
    return key


def public_key_from(line: str) -> EllipticCurvePublicKey:
    """The key of a line as `<name>.pub` holds it; `ValueError` where it is no such key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = form.load_ssh_public_key(line.encode())
    except UnsupportedAlgorithm as fault:
        raise ValueError(str(fault)) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("it is of another kind than elliptic curve P-384")
    return key


def fingerprint_of(public: bytes) -> str:
    """`SHA256:...` of an OpenSSH public key, as `ssh-keygen -lf` prints it."""
    import base64
    import hashlib

    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Create the file, whole or not at all, with its permissions from the first byte on; an existing one is a
    fault."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask says
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise
