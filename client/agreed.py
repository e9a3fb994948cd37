"""The store a site made under the agreed vocabulary, and where it lies.

Every round opens it, so this module imports nothing that only reading the data set needs.
"""

from __future__ import annotations

from pathlib import Path

from client.policy import check_task
from client.site import SiteConfig
from hymate.config import TaskConfig
from hymate.data.fingerprint import fingerprint
from hymate.data.store import StoreMismatch, TripletStore, open_store
from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault


def agreed_store(site: SiteConfig, task: TaskConfig, vocabulary_hash: str) -> tuple[TripletStore, Vocabulary]:
    """The store this site made under the agreed vocabulary from the data as they are now.

    Raises:
        InputFault: the site made none, or its data set has changed since: what it would train on is no
            longer what it described, and what the vocabulary was agreed on.
    """
    known = vocabulary_path(site, vocabulary_hash)
    if not known.is_file():
        raise InputFault(
            f"site {site.name}",
            f"has not agreed to vocabulary {vocabulary_hash[:12]}",
            "the coordinator runs the vocabulary phase with this site first",
        )
    check_task(site, task)
    try:
        store = open_store(
            store_path(site, task, vocabulary_hash),
            dataset=fingerprint_of(site, task),
            vocabulary_hash=vocabulary_hash,
            task=task,
        )
    except StoreMismatch as fault:
        raise InputFault(
            f"site {site.name}",
            f"its triplet store {fault.what}",
            "put the data set back as it was, or run the study again from its vocabulary phase",
        ) from None
    return store, Vocabulary.load(known)


def store_path(site: SiteConfig, task: TaskConfig, vocabulary_hash: str) -> Path:
    return site.cache / f"{task.key}-{vocabulary_hash[:12]}"


def vocabulary_path(site: SiteConfig, vocabulary_hash: str) -> Path:
    return site.cache / f"vocabulary-{vocabulary_hash[:12]}.json"


def fingerprint_of(site: SiteConfig, task: TaskConfig) -> str:
    return fingerprint(site.data, task.name, site.cache / f"fingerprint-{task.name}.json")
