"""What is checked before a federation begins, and by `flower-server --dry-run`: nothing is started.

Each finding is one line: what was looked at, what is wrong, what to do.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from hymate.errors import InputFault
from server.control import key_bytes
from server.federation_config import FederationConfig, TlsConfig, split_address
from server.named_sites import demand_named_sites
from server.resume import has_work, refuse_unfinished
from server.simulation_layout import refuse_foreign
from server.study import StudyConfig
from server.tls_checks import certificate_findings

FLOWER = "1.41."
DISK_NEEDED, DISK_WANTED = 512 * 2**20, 5 * 2**30
"""Bytes free below which a study does not begin, and below which it is said."""
LEAVES_S = 20.0
"""How long a run that goes on waits for its ports: Flower needs a while to end what was killed."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    check: str
    state: Literal["ok", "warn", "fail"]
    what: str
    remedy: str = ""

    def line(self) -> str:
        return f"{self.check}: {self.what}{f'; {self.remedy}' if self.remedy else ''}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def check_deployment(
    study: StudyConfig, out: Path, *, resume: bool, now: dt.datetime | None = None
) -> list[Finding]:
    """Everything that can be known before a start; never raises for what a person gave."""
    federation = study.federation
    if federation is None:
        return [
            Finding(
                f"study '{study.name}'",
                "fail",
                "has no `federation:` section",
                "say where to listen and which sites to let in; `flower-server --init DIR` writes an example",
            )
        ]
    now = now or dt.datetime.now(dt.UTC)
    findings = [*_versions(), *_participation(study, federation)]
    if federation.superlink is None:
        findings += _certificate(federation, now, longest(study, federation))
        findings += _ports(federation, LEAVES_S if resume else 0.0)
    else:
        findings += _named_superlink(federation)
    findings += _public_keys(federation)
    findings += _run_folder(out, resume=resume)
    return findings


def longest(study: StudyConfig, federation: FederationConfig) -> dt.timedelta:
    """The time a study takes at most where every exchange needs its whole deadline."""
    asked, rounds = study.evaluation, study.pretrain.rounds + study.finetune.rounds
    exchanges = 3 + rounds + 2 + 2 * asked.local_baseline
    exchanges += len(federation.sites) * (asked.cross_site_matrix + (rounds + 5) * asked.leave_one_site_out)
    minutes = federation.wait_minutes + exchanges * study.participation.deadline_minutes
    return dt.timedelta(minutes=minutes)


def _versions() -> Iterator[Finding]:
    flower = version("flwr")
    known = (
        f"hymate-federated {version('hymate-federated')}, flwr {flower}, Python {platform.python_version()}"
    )
    if flower.startswith(FLOWER):
        yield Finding("versions", "ok", known)
    else:
        yield Finding(
            "versions", "fail", f"{known}: not tested with this Flower", f"pip install 'flwr=={FLOWER}*'"
        )


def _participation(study: StudyConfig, federation: FederationConfig) -> Iterator[Finding]:
    if study.evaluation.pooled_baseline:
        remedy = "set it to false; hymate-simulate can have it"
        yield Finding("evaluation.pooled_baseline", "fail", "no hospital gives its rows away", remedy)
    rules, sites = study.participation, len(federation.sites)
    drawn = rules.drawn(sites)
    try:
        demand_named_sites(study, federation.sites, "site of the federation")
    except InputFault as fault:
        yield Finding(fault.where, "fail", fault.what, fault.remedy)
        return
    draws = "" if drawn == sites else f"draws {drawn} and "
    known = ", ".join(federation.sites)
    yield Finding("sites", "ok", f"{known}; a round {draws}needs {rules.needed(drawn)} of {sites}")


def _certificate(federation: FederationConfig, now: dt.datetime, length: dt.timedelta) -> Iterator[Finding]:
    hosts = {federation.seen_as(): "sites", split_address(federation.local_address())[0]: "this machine"}
    try:
        yield Finding(
            "certificate", "ok", certificate_findings(_files(federation.tls), hosts, now, now + length)
        )
    except InputFault as fault:
        yield Finding(f"certificate {fault.where}", "fail", fault.what, fault.remedy)
        return
    key = federation.tls.key
    if key is not None and os.name == "posix" and key.stat().st_mode & 0o077:
        yield Finding(f"key {key}", "warn", "can be read by others on this machine", f"chmod 600 {key}")


def _files(tls: TlsConfig) -> tuple[Path, Path, Path]:
    assert tls.certificate is not None  # FederationConfig asks for both where no SuperLink is named
    assert tls.key is not None
    return tls.certificate, tls.key, tls.ca


def _ports(federation: FederationConfig, patience_s: float) -> Iterator[Finding]:
    """Whether the ports are free, or are within so long: a killed command's SuperLink needs to leave."""
    until = time.monotonic() + patience_s
    for key, address in (("address", federation.address), ("health_address", federation.health_address)):
        while (fault := _in_the_way(address)) is not None and time.monotonic() < until:
            time.sleep(0.2)
        if fault is not None:
            yield Finding(
                f"federation.{key} {address}",
                "fail",
                f"cannot listen there: {fault.strerror or fault}",
                "end what uses the port, or choose another address",
            )
        else:
            yield Finding(f"federation.{key}", "ok", f"{address} is free")


def _in_the_way(address: str) -> OSError | None:
    """What keeps us from listening there."""
    host, port = split_address(address)
    try:
        family, kind, proto, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as fault:
        return fault
    return None


def _named_superlink(federation: FederationConfig) -> Iterator[Finding]:
    address = federation.local_address()
    host, port = split_address(address)
    try:
        trust = ssl.create_default_context(cafile=federation.tls.ca)
        with (
            socket.create_connection((host, port), timeout=5) as plain,
            trust.wrap_socket(plain, server_hostname=host),
        ):
            yield Finding("federation.superlink", "ok", f"{address} answers with a certificate we trust")
    except ssl.SSLCertVerificationError as fault:
        yield Finding(
            "federation.superlink",
            "fail",
            f"the certificate of {address} cannot be verified: {fault.verify_message}",
            "let tls.ca be the authority that signed it",
        )
    except OSError as fault:
        yield Finding(
            "federation.superlink",
            "fail",
            f"{address} cannot be used: {fault.strerror or fault}",
            "start it with `flower-server --keep`, or leave the key out",
        )


def _public_keys(federation: FederationConfig) -> Iterator[Finding]:
    owner: dict[bytes, str] = {}
    for site, entry in federation.sites.items():
        where = f"federation.sites.{site}.public_key {entry.public_key}"
        remedy = "have the site send the .pub file of `hymate-client keygen`"
        try:
            key = key_bytes(entry.public_key)
        except OSError as fault:
            yield Finding(where, "fail", fault.strerror or "cannot be read", remedy)
            continue
        except ValueError as fault:
            private = b"PRIVATE KEY" in entry.public_key.read_bytes()
            what = "holds a private key, which must not leave the site" if private else f"is no key: {fault}"
            yield Finding(where, "fail", what, remedy)
            continue
        if key in owner:
            yield Finding(where, "fail", f"is also the key of {owner[key]}", "give every site its own key")
        owner.setdefault(key, site)
    if len(owner) == len(federation.sites):
        yield Finding("public keys", "ok", f"{len(owner)}, each another")


def _run_folder(out: Path, *, resume: bool) -> Iterator[Finding]:
    where = f"run folder {out}"
    try:
        refuse_foreign(out)
        if not resume and has_work(out):
            refuse_unfinished(out)
        there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except InputFault as fault:
        yield Finding(where, "fail", fault.what, fault.remedy)
    except OSError as fault:
        yield Finding(where, "fail", f"cannot be written: {fault.strerror}", "choose another --out")
    else:
        state: Literal["ok", "warn", "fail"] = (
            "fail" if free < DISK_NEEDED else "warn" if free < DISK_WANTED else "ok"
        )
        yield Finding(
            where,
            state,
            f"can be written, {free / 2**30:.1f} GiB free",
            "" if state == "ok" else f"make room: {DISK_WANTED / 2**30:.0f} GiB are a good start",
        )
