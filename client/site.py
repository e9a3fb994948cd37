"""The site file: where a hospital's data lies, whom it talks to, and what the hospital allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from hymate.config import Count, Frozen, Positive, load_yaml, parse
from hymate.errors import InputFault

SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


def _is_address(address: str) -> str:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", address):
        raise ValueError("write it as HOST:PORT, for example coordinator.example.org:9092")
    return address


Address = Annotated[str, AfterValidator(_is_address)]
"""HOST:PORT; an IPv6 host stands in brackets."""


def _is_public_key(line: str) -> str:
    from client.keygen import public_key_from

    try:
        public_key_from(line)
    except ValueError:
        raise ValueError(
            "is no OpenSSH public key of elliptic curve P-384: copy the line of the site's .pub file"
        ) from None
    return line


PublicKeyLine = Annotated[str, AfterValidator(_is_public_key)]
"""`ecdsa-sha2-nistp384 AAAA... NAME`."""

FLOWER = ".flower"
"""Flower's own folder below `state`; no study can have this name."""


class PrivacyPolicy(Frozen):
    """What all studies together may learn about one patient, as differential privacy counts it."""

    epsilon: Positive
    """The budget: a round that would take the site's ledger beyond it is refused before it runs."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-5
    """The probability with which epsilon may not hold; well below one over the number of patients."""
    demand: bool = False
    """No update without noise ever leaves the site: studies without differential privacy are refused."""
    demand_statistics: bool = False
    """No count, statistic or figure of evaluation ever leaves without noise: studies without
    `privacy.dp_statistics` are refused."""
    publish_epsilon: bool = False
    """Tell the coordinator with every round what its study has cost so far. That number follows from the
    number of training patients."""


class SecurePolicy(Frozen):
    """In which sums in secret the site takes part (secure aggregation)."""

    min_summed: Annotated[int, Field(ge=2)] = 3
    """Fewest sites of a sum. With two, each can take its own update out and see the other's."""
    demand: bool = False
    """No update ever leaves unmasked: studies without secure aggregation are refused."""
    known_sites: dict[SiteName, PublicKeyLine] | None = None
    """Site -> its public key, the line in its `.pub` file (`hymate-client keygen`). Then only sums among them
    are taken part in, and each must have signed its keys; null: the coordinator is believed."""


class Policy(Frozen):
    """What the hospital allows, whatever the coordinator asks."""

    min_cell: Annotated[int, Field(ge=1)] = 5
    """Counts below this never leave the site: they are joined with others, or not sent."""
    tasks: tuple[str, ...] | None = None
    """Tasks the site takes part in; none listed means every task it has labels for."""
    studies: tuple[str, ...] | None = None
    """Names of the studies the site trains for; null: any."""
    max_rounds_per_study: Count | None = None
    """Training rounds (pretraining and fine-tuning together) one study may have from this site; null:
    no limit. A round asked again with the same weights is the same round."""
    leave_one_site_out: bool = True
    """Whether the site also trains for a study's models that leave another site out. Each is a training of
    its own, and its rounds count towards `max_rounds_per_study`."""
    share_own_model: bool = False
    """Whether the model trained on this site's stays alone may leave it, for the other sites to score."""
    approved_app: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the only Flower app bundle that may run here; null: the bundle of the installed
    release, which holds no code. `hymate-client check` prints it."""
    privacy: PrivacyPolicy | None = None
    """The budget for rounds with noise; null: no limit, and rounds without noise are given. Rounds with
    noise are entered in the ledger either way (docs/privacy.md)."""
    secure_aggregation: SecurePolicy = SecurePolicy()
    """Rules for studies with `secure_aggregation:`."""


class Coordinator(Frozen):
    """Whom the site calls, and how it knows that it is them."""

    address: Address
    """HOST:PORT of the coordinator (`federation.address` of the study)."""
    ca: Path
    """Certificate (PEM) of the authority that signed the coordinator's."""
    health_address: Address | None = None
    """HOST:PORT of the coordinator's gRPC health service, where the site may reach it; for `check`."""

    @field_validator("address", "health_address")
    @classmethod
    def _port_exists(cls, address: str | None) -> str | None:
        if address is not None and not 1 <= port_of(address) <= 65535:
            raise ValueError("the port is between 1 and 65535")
        return address


class SiteConfig(Frozen):
    """One hospital. Relative paths are seen from the site file's folder."""

    name: SiteName
    data: Path
    """MEDS data set: `data/`, `metadata/`, `labels/`. Only read."""
    cache: Path = Path("cache")
    """Windows and triplet stores made from the data; rows of patients, safe to delete."""
    state: Path = Path("state")
    """What the site must remember: optimiser moments, rounds given, its journal; not safe to delete
    while a study runs."""
    policy: Policy = Policy()
    threads: Count = 1
    """CPU threads of one training step. Fixed, so that a repeated run gives the same bits."""
    coordinator: Coordinator | None = None
    """Needed by `hymate-client`; a simulation needs none."""
    key: Path | None = None
    """The site's private key (`hymate-client keygen`), readable by its owner alone."""
    health_address: Address | None = "127.0.0.1:9094"
    """Where the running client answers gRPC health checks; null: nowhere."""


def load_site(path: Path) -> SiteConfig:
    """Read a site file; `InputFault` names file, key and remedy."""
    site = parse(SiteConfig, load_yaml(path), path)
    folder = path.resolve().parent
    paths = {field: folder / getattr(site, field) for field in ("data", "cache", "state")}
    if site.key is not None:
        paths["key"] = folder / site.key
    found: dict[str, object] = dict(paths)
    if site.coordinator is not None:
        found["coordinator"] = site.coordinator.model_copy(update={"ca": folder / site.coordinator.ca})
    return site.model_copy(update=found)


def connection_of(site: SiteConfig, path: Path) -> tuple[Coordinator, Path]:
    """The coordinator and the site's key; `InputFault` where the site file (at `path`) lacks one."""
    if site.coordinator is None:
        raise InputFault(
            path, "key 'coordinator' is missing", "add coordinator: {address: HOST:PORT, ca: ca.crt}"
        )
    if site.key is None:
        raise InputFault(path, "key 'key' is missing", "make one with 'hymate-client keygen' and name it")
    return site.coordinator, site.key


def host_of(address: str) -> str:
    """The host of HOST:PORT, without brackets."""
    return address.rsplit(":", 1)[0].strip("[]")


def port_of(address: str) -> int:
    return int(address.rsplit(":", 1)[1])
