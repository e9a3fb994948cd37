"""A small certificate authority for one federation: its own certificate, and the coordinator's.

Elliptic curve P-384, SHA-384, X.509 v3 (RFC 5280). A hospital that has an authority of its own uses
that instead; nothing else in the project depends on how a certificate came about.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hymate.durable import write_bytes
from hymate.errors import InputFault

CLOCKS_APART = dt.timedelta(minutes=10)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names by which the coordinator's own processes reach its SuperLink."""


def make_certificates(folder: Path, hosts: Sequence[str], days: int = 825) -> dict[str, Path]:
    """Write `ca.crt`, `ca.key`, `server.crt` and `server.key` into `folder`.

    An authority that is already there signs again, so that sites keep their `ca.crt` when the
    coordinator's certificate is renewed.

    Args:
        hosts: DNS names and IP addresses by which sites reach the coordinator.
        days: how long the coordinator's certificate holds; a new authority holds ten times as long.

    Raises:
        InputFault: no host, a host that is neither name nor address, an authority that cannot be
            read, or only half of one.
    """
    names = subject_names(hosts)
    ca_file, ca_key_file = folder / "ca.crt", folder / "ca.key"
    if ca_file.exists() != ca_key_file.exists():
        there, missing = (ca_file, ca_key_file) if ca_file.exists() else (ca_key_file, ca_file)
        raise InputFault(there, f"lies there without {missing.name}", "put both there, or name another --out")
    if ca_file.exists():
        ca, ca_key = _read_authority(ca_file, ca_key_file)
    else:
        ca, ca_key = _new_authority(days * 10)
        _write(ca_key_file, _private(ca_key), secret=True)
        _write(ca_file, _public(ca))
    server, server_key = _new_server(ca, ca_key, names, days)
    _write(folder / "server.key", _private(server_key), secret=True)
    _write(folder / "server.crt", _public(server))
    return {name: folder / name for name in ("ca.crt", "ca.key", "server.crt", "server.key")}


def subject_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """The names a certificate for these hosts holds; `InputFault` where one is neither name nor address."""
    if not hosts:
        raise InputFault("--host", "is missing", "name the host by which sites reach the coordinator")
    found: dict[str, x509.GeneralName] = {}
    for host in (*hosts, *LOOPBACK):
        try:
            found[host] = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            try:
                found[host] = x509.DNSName(host)
            except ValueError:
                raise InputFault(
                    f"--host {host}", "is neither a DNS name nor an IP address", "write names in ASCII"
                ) from None
            if not host.replace("-", "").replace(".", "").replace("*", "").isalnum():
                raise InputFault(
                    f"--host {host}",
                    "is neither a DNS name nor an IP address",
                    "give the host alone, without port or path",
                ) from None
    return list(found.values())


def _new_authority(days: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name("Federated HyMaTE authority")
    builder = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA384()), key


def _new_server(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    days: int,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        _builder(_name("Federated HyMaTE coordinator"), ca.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    return builder.sign(ca_key, hashes.SHA384()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _read_authority(ca_file: Path, key_file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    remedy = "name another --out to begin a new authority"
    try:
        ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as fault:
        raise InputFault(ca_file, f"cannot be used with {key_file.name}: {fault}", remedy) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise InputFault(key_file, f"is not the elliptic curve key of {ca_file.name}", remedy)
    return ca, key


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Whole or not at all; a secret is never readable by others, not even while it is written."""
    before = os.umask(0o077 if secret else 0o022)
    try:
        write_bytes(path, content)
    finally:
        os.umask(before)
