"""The site's key and the authority's certificate, as files."""

from __future__ import annotations

import datetime as dt
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from client.keygen import fingerprint_of, public_key_of
from client.preflight.lines import Line, fail, ok, plural, warn
from client.service import demand_readable

SOON = dt.timedelta(days=30)


def check_key(path: Path) -> Iterator[Line]:
    """Readable, of the right kind, and nobody else's business."""
    public = public_key_of(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    remedy = f"chmod 600 {path}"
    if mode & 0o007:
        yield fail("key", f"{path} is readable by everyone on this machine (mode {mode:o})", remedy)
    elif mode & 0o077:
        yield warn("key", f"{path} is open to its group (mode {mode:o})", remedy)
    else:
        yield ok("key", f"{path}, fingerprint {fingerprint_of(public)}")


def check_authority(path: Path, now: dt.datetime) -> Iterator[Line]:
    """The authority's certificate can be read and is valid."""
    content = demand_readable(path)
    try:
        certificates = x509.load_pem_x509_certificates(content)
    except ValueError:
        yield fail("authority", f"{path} holds no PEM certificate", "get it from the coordinator again")
        return
    for certificate in certificates:
        yield validity("authority", str(path), certificate, now, "get the new one from the coordinator")


def validity(name: str, what: str, certificate: x509.Certificate, now: dt.datetime, remedy: str) -> Line:
    """How long a certificate still holds."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        clock = f"compare this machine's clock; or {remedy}"
        return fail(name, f"{what} is valid only from {begins:%Y-%m-%d %H:%M} UTC", clock)
    if now > ends:
        return fail(name, f"{what} expired on {ends:%Y-%m-%d %H:%M} UTC", remedy)
    left = plural((ends - now).days, "day")
    said = f"{what} is valid until {ends:%Y-%m-%d}, {left} left"
    return warn(name, said, f"soon {remedy}") if ends - now < SOON else ok(name, said)
