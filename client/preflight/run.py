"""`hymate-client check`: every line of the preflight, in the order in which a person would mend them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from client.policy import in_words
from client.preflight import machine, network
from client.preflight.data import check_contract, check_coverage, check_labels, read_data, usable_tasks
from client.preflight.keys import check_authority, check_key
from client.preflight.ledger import check_ledger
from client.preflight.lines import Line, fail, guarded, ok
from client.site import SiteConfig, load_site
from hymate.errors import InputFault


def preflight(
    config: Path, *, now: dt.datetime | None = None, free_bytes: int | None = None
) -> Iterator[Line]:
    """Look at everything; a line as soon as it is known. A site file that cannot be read is the only one.

    Args:
        now: what certificates are held against (with time zone); this moment when None.
        free_bytes: free disk space to reckon with; None: what the disk says.
    """
    moment = now or dt.datetime.now(dt.UTC)
    try:
        site = load_site(config)
    except InputFault as fault:
        yield fail("site file", f"{fault.where}: {fault.what}", fault.remedy)
        return
    yield ok("site file", f"{config}: site {site.name}")
    yield from (ok("policy", sentence) for sentence in in_words(site.policy))
    yield from guarded("app", _app)
    yield from machine.check_folders(site)
    yield from guarded("rounds", lambda: machine.check_rounds(site))
    yield from guarded("ledger", lambda: check_ledger(site))
    yield from machine.check_disk(site, free_bytes)
    yield from machine.check_memory()
    yield from machine.check_threads(site)
    yield from guarded("backend", machine.check_backend)
    yield from guarded("data", lambda: _data(site))
    yield from _connection(site, moment)


def _app() -> Iterator[Line]:
    from client.approval import release_hash

    yield ok("app", f"the installed release's bundle has SHA-256 {release_hash()}")


def _data(site: SiteConfig) -> Iterator[Line]:
    report = read_data(site)
    yield from check_contract(site, report)
    yield from check_labels(site, report)
    yield from guarded("vocabulary", lambda: check_coverage(site))
    tasks = usable_tasks(site, report)
    if tasks and not report.errors:
        yield from guarded("training step", lambda: machine.check_step(site, tasks[0]))


def _connection(site: SiteConfig, now: dt.datetime) -> Iterator[Line]:
    key, coordinator = site.key, site.coordinator
    if key is None:
        remedy = "make one with 'hymate-client keygen' and name it as `key`"
        yield fail("key", "the site file has no `key`", remedy)
    else:
        yield from guarded("key", partial(check_key, key))
    yield from guarded("own health", lambda: network.check_own_health(site))
    if coordinator is None:
        remedy = "add coordinator: {address: HOST:PORT, ca: ca.crt}"
        yield fail("coordinator", "the site file has no `coordinator`", remedy)
        return
    yield from guarded("authority", lambda: check_authority(coordinator.ca, now))
    yield from guarded("coordinator", lambda: network.check_coordinator(coordinator, key, now))
    yield from guarded("health", lambda: network.check_health(coordinator))
