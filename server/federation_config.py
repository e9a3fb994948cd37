"""The `federation:` section of a study file: where the coordinator listens, and which sites it knows."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from hymate.config import Frozen, Positive

SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`; `ValueError` where it is neither."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("write it as HOST:PORT, for example coordinator.example.org:9092")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """`HOST:PORT`, with the brackets an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: str) -> bool:
    """Whether `host` means every network interface of the machine (0.0.0.0 or ::)."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_address(address: str) -> str:
    split_address(address)
    return address


Address = Annotated[str, AfterValidator(_is_address)]


class TlsConfig(Frozen):
    """Files in PEM format, as `flower-server certificates` writes them."""

    ca: Path
    """Certificate of the authority that signed the coordinator's; every site holds a copy."""
    certificate: Path | None = None
    """The coordinator's own, with the names by which sites and this machine reach it."""
    key: Path | None = None
    """Private key of `certificate`, without a passphrase."""


class SiteEntry(Frozen):
    """One hospital the coordinator lets in."""

    public_key: Path
    """OpenSSH public key of the hospital's node (`hymate-client keygen` makes the pair)."""
    required: bool = False
    """Whether the study waits for this site before it begins."""


class FederationConfig(Frozen):
    """Only `flower-server` reads this. Relative paths start at the study file."""

    address: Address = "0.0.0.0:9092"
    """Where the coordinator listens for sites."""
    public_address: Address | None = None
    """What sites call the coordinator; default: `address`. Its host must be in the certificate."""
    health_address: Address = "127.0.0.1:9091"
    """Where the gRPC health service listens, without TLS."""
    tls: TlsConfig
    sites: Annotated[dict[SiteName, SiteEntry], Field(min_length=1)]
    wait_minutes: Positive = 60.0
    """How long the study waits for the required sites and the quorum before it gives up."""
    superlink: Address | None = None
    """A SuperLink that already runs on this machine, instead of one of our own."""

    @model_validator(mode="after")
    def _own_superlink_has_a_certificate(self) -> FederationConfig:
        for name in ("certificate", "key"):
            if self.superlink is None and getattr(self.tls, name) is None:
                raise ValueError(f"tls.{name} is missing; `flower-server certificates` makes one")
        if self.superlink is None and self.address == self.health_address:
            raise ValueError("address and health_address are the same; give each its own port")
        return self

    def with_paths(self, place: Callable[[Path], Path]) -> FederationConfig:
        """A copy with every path replaced by `place(path)`."""
        tls = {
            name: place(path) for name in ("ca", "certificate", "key") if (path := getattr(self.tls, name))
        }
        sites = {
            name: entry.model_copy(update={"public_key": place(entry.public_key)})
            for name, entry in self.sites.items()
        }
        return self.model_copy(update={"tls": self.tls.model_copy(update=tls), "sites": sites})

    def seen_as(self) -> str:
        """The host sites use."""
        return split_address(self.public_address or self.address)[0]

    def local_address(self) -> str:
        """Where processes on this machine reach the SuperLink."""
        host, port = split_address(self.superlink or self.address)
        if is_wildcard(host):
            host = "::1" if ":" in host else "127.0.0.1"
        return join_address(host, port)
