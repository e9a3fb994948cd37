"""The store a site made under the agreed vocabulary, and where it lies.

Every round opens it, so this module imports nothing that only reading the data set needs.
"""

from __future__ import annotations

import resource
from functools import lru_cache
from pathlib import Path

from client.site import SiteConfig
from client.unchanged import Look, look
from hymate.config import TaskConfig
from hymate.data.fingerprint import fingerprint
from hymate.data.store import ARRAYS, TripletStore, open_store
from hymate.data.store_header import HEADER, StoreMismatch
from hymate.errors import InputFault

FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
"""Open files that the stores of other sites, or of this one's other tasks, may keep between messages."""


def agreed_store(site: SiteConfig, task: TaskConfig, vocabulary_hash: str) -> TripletStore:
    """The store this site made under the agreed vocabulary from the data as they are now.

    Raises:
        InputFault: the site made none, or its data set has changed since: what it would train on is no
            longer what it described, and what the vocabulary was agreed on.
    """
    if not vocabulary_path(site, vocabulary_hash).is_file():
        raise InputFault(
            f"site {site.name}",
            f"has not agreed to vocabulary {vocabulary_hash[:12]}",
            "the coordinator runs the vocabulary phase with this site first",
        )
    try:
        path = store_path(site, task, vocabulary_hash)
        store = _opened(path, look(path / HEADER), fingerprint_of(site, task), vocabulary_hash, task)
    except StoreMismatch as fault:
        raise InputFault(
            f"site {site.name}",
            f"its triplet store {fault.what}",
            "put the data set back as it was, or run the study again from its vocabulary phase",
        ) from None
    return store


def store_path(site: SiteConfig, task: TaskConfig, vocabulary_hash: str) -> Path:
    return site.cache / f"{task.key}-{vocabulary_hash[:12]}"


def vocabulary_path(site: SiteConfig, vocabulary_hash: str) -> Path:
    return site.cache / f"vocabulary-{vocabulary_hash[:12]}.json"


def fingerprint_of(site: SiteConfig, task: TaskConfig) -> str:
    return fingerprint(site.data, task.name, site.cache / f"fingerprint-{task.name}.json")


@lru_cache(maxsize=FILES // len(ARRAYS))  # each array that is mapped holds a file open
def _opened(path: Path, header: Look, dataset: str, vocabulary_hash: str, task: TaskConfig) -> TripletStore:
    return open_store(path, dataset=dataset, vocabulary_hash=vocabulary_hash, task=task)
