"""Whether a coordinator's certificate will do: readable, its key, its authority, its names, its time."""

from __future__ import annotations

import datetime as dt
import fnmatch
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from hymate.errors import InputFault

MAKE = "make one with `flower-server certificates --out DIR --host NAME`"


def certificate_findings(
    files: tuple[Path, Path, Path], hosts: Mapping[str, str], now: dt.datetime, until: dt.datetime
) -> str:
    """What the certificate is good for, in words.

    Args:
        files: certificate (intermediate ones may follow in the same file), private key, authority.
        hosts: every host the certificate must name, and who reaches the coordinator by it.
        until: the last moment at which the certificate is needed.

    Raises:
        InputFault: the first thing that would keep a site from trusting the coordinator.
    """
    certificate_file, key_file, ca_file = files
    chain = _certificates(certificate_file)
    authorities = _certificates(ca_file)
    own = chain[0]
    if _public(_private_key(key_file)) != _public(own):
        raise InputFault(
            key_file, f"is not the key of {certificate_file}", "name the pair that belongs together"
        )
    for path, found in ((certificate_file, own), (ca_file, authorities[0])):
        _check_time(path, found, now, until)
    if not _is_signed(chain, authorities):
        raise InputFault(
            certificate_file,
            f"is not signed by the authority in {ca_file}",
            "name the authority that signed it as tls.ca",
        )
    names = _names(own)
    for host, who in hosts.items():
        if not any(_names_host(name, host) for name in names):
            raise InputFault(
                certificate_file,
                f"does not name '{host}', by which {who} will reach the coordinator "
                f"(it names {', '.join(names) or 'nobody'})",
                "make one with --host for every such name, or correct federation.public_address",
            )
    return f"names {', '.join(names)}; valid until {own.not_valid_after_utc:%Y-%m-%d}"


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as fault:
        raise InputFault(path, fault.strerror or "cannot be read", MAKE) from None
    except ValueError:
        raise InputFault(path, "holds no certificate in PEM format", MAKE) from None


def _private_key(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as fault:
        raise InputFault(path, fault.strerror or "cannot be read", MAKE) from None
    except TypeError:
        raise InputFault(
            path, "is locked with a passphrase", "write it without one: openssl pkey -in KEY -out NEW"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputFault(path, "holds no private key in PEM format", MAKE) from None


def _public(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_time(path: Path, found: x509.Certificate, now: dt.datetime, until: dt.datetime) -> None:
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    if now < begins:
        raise InputFault(
            path, f"is not valid before {begins:%Y-%m-%d %H:%M} UTC", "set this machine's clock, or wait"
        )
    if now > ends:
        raise InputFault(path, f"expired on {ends:%Y-%m-%d %H:%M} UTC", MAKE)
    if until > ends:
        raise InputFault(
            path,
            f"expires on {ends:%Y-%m-%d %H:%M} UTC; the study may need it until {until:%Y-%m-%d %H:%M}",
            "renew it, or lower the rounds or participation.deadline_minutes",
        )


def _is_signed(chain: list[x509.Certificate], authorities: list[x509.Certificate]) -> bool:
    """Whether a line of signatures leads from the first of `chain` to an authority."""
    current, others = chain[0], chain[1:]
    while True:
        if any(_signed_by(current, authority) for authority in authorities):
            return True
        issuer = next((other for other in others if _signed_by(current, other)), None)
        if issuer is None:
            return False
        others.remove(issuer)
        current = issuer


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return [*found.get_values_for_type(x509.DNSName), *addresses]


def _names_host(name: str, host: str) -> bool:
    """RFC 6125: addresses must be equal; `*` stands for one whole label at the left."""
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        same_depth = name.count(".") == host.count(".")
        return same_depth and fnmatch.fnmatchcase(host.lower(), name.lower())
