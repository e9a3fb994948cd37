"""The site's secret, and the random numbers of private rounds, which come from it.

The coordinator knows a study's seed: noise made from that alone could be taken away again. So noise, draws of
patients, masks and dropout of a private round come from generators whose key is
HMAC-SHA256(secret, identity of the round's entry in the ledger). The same entry gives the same bits, which is
no second release; whatever differs is another entry, with other noise, and is charged.

The secret is 32 random bytes in the state folder, for the site's account alone. It never leaves: who has it
and the site's updates can take the noise away. Lost, it is made anew, and rounds asked again are new rounds.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from client.site import SiteConfig
from hymate.durable import flush_folder
from hymate.errors import InputFault

FILE = "noise.secret"
BYTES = 32
PURPOSE = b"hymate: randomness of a private round, 1\0"
NAME = b"hymate: name of the secret, 1\0"


def secret_path(site: SiteConfig) -> Path:
    return site.state / FILE


def site_secret(site: SiteConfig) -> bytes:
    """The site's secret; made where there is none.

    Raises:
        InputFault: it can be read by others than its owner, is no secret, or cannot be read or made.
    """
    path = secret_path(site)
    try:
        if not path.exists():
            _make(path)
        return _read(path)
    except OSError as fault:
        raise InputFault(
            path,
            f"the site's secret cannot be read or made ({fault.strerror})",
            "mend the file or the folder's permissions; nothing private is trained without it",
        ) from None


def name_of(secret: bytes) -> str:
    """A name (hex) that tells one secret from another and nothing else."""
    return hmac.digest(secret, NAME, hashlib.sha256).hex()[:16]


def key_of(secret: bytes, identity: str) -> bytes:
    """32 bytes that nobody without the secret can tell from random ones: the round's of this identity."""
    return hmac.digest(secret, PURPOSE + identity.encode(), hashlib.sha256)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        seen = os.fstat(descriptor)
        content = file.read(BYTES + 1)
    if not stat.S_ISREG(seen.st_mode) or len(content) != BYTES:
        raise InputFault(
            path,
            "is no secret of a site",
            "restore it from a backup, or remove it: with a new one, rounds asked again cost again",
        )
    if stat.S_IMODE(seen.st_mode) & 0o077:
        raise InputFault(
            path,
            f"others than its owner may read or change the secret (mode {stat.S_IMODE(seen.st_mode):o})",
            "remove it if anyone may have read it, else chmod 600",
        )
    return content


def _make(path: Path) -> None:
    """Whole or not at all, and never over another: of two processes the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(BYTES))
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink()
    flush_folder(path.parent)
