"""Questions about the site's data: what it holds, its code statistics, the store made from it."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from client.agreed import agreed_store, fingerprint_of, store_path, vocabulary_path
from client.policy import publishable
from client.site import SiteConfig
from hymate.config import TaskConfig
from hymate.data.mapping import translated
from hymate.data.meds import SPLITS, MedsDataset
from hymate.data.statistics import code_statistics
from hymate.data.store import prepare_store
from hymate.data.tasks import Windows, cut_windows
from hymate.data.vocabulary import Vocabulary
from hymate.data.window_cache import kept_dataset, kept_windows
from hymate.errors import InputFault
from hymate.joining_protocol import (
    DescribeRequest,
    PrepareReply,
    PrepareRequest,
    SiteDescription,
    SplitCounts,
    StatisticsReply,
    StatisticsRequest,
)


def describe(site: SiteConfig, request: DescribeRequest) -> SiteDescription:
    """Stays and positives per split, small counts left out."""
    dataset, windows = _windows(site, request.task)
    if request.noisy is not None:
        from client.noisy_queries import noisy_splits

        return SiteDescription(
            site=site.name,
            dataset=dataset.name,
            splits=noisy_splits(site, request, windows),
            left_out={},
            versions=_versions(),
        )
    splits = {}
    for name in SPLITS:
        labels = windows.stays.filter(windows.stays["split"] == name)["label"]
        positives = int((labels > 0.5).sum())
        stays = publishable(len(labels), site.policy)
        splits[name] = SplitCounts(
            stays=stays,
            positives=None if stays is None else publishable(positives, site.policy),
        )
    left_out = {
        reason: count
        for reason, count in windows.left_out.items()
        if publishable(count, site.policy) is not None
    }
    return SiteDescription(
        site=site.name,
        dataset=dataset.name,
        splits=splits,
        left_out=left_out,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    names = ("hymate-federated", "torch", "flwr")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def statistics(site: SiteConfig, request: StatisticsRequest) -> StatisticsReply:
    """Counts, moments and quantiles of every code over the training split; small cells stay at home."""
    dataset, windows = _windows(site, request.task)
    if request.noisy is not None:
        from client.noisy_queries import noisy_code_statistics

        gathered = noisy_code_statistics(site, request, windows, dataset.units())
    else:
        gathered = code_statistics(
            windows, dataset.units(), site.policy.min_cell, mapping=request.mapping, site=site.name
        )
    return StatisticsReply(site=site.name, statistics=gathered.to_json())


def prepare(site: SiteConfig, request: PrepareRequest) -> PrepareReply:
    """Write the triplet store under the agreed vocabulary; keep the vocabulary beside it.

    A store that is there already, of these data and this vocabulary, is left as it is: a site that comes
    back is asked again, and answers in no time.

    Raises:
        InputFault: the vocabulary is not the one announced, or the data set is no longer the one that
            this site's statistics were of.
    """
    began = time.perf_counter()
    vocabulary = Vocabulary.from_json(request.vocabulary)
    if vocabulary.hash != request.vocabulary_hash:
        raise InputFault(
            f"site {site.name}",
            f"the vocabulary received has hash {vocabulary.hash[:12]}, announced was "
            f"{request.vocabulary_hash[:12]}",
            "the coordinator sends the vocabulary phase again",
        )
    described = kept_dataset(_windows_path(site, request.task))
    if described not in (None, fingerprint_of(site, request.task)):
        raise InputFault(
            f"site {site.name}",
            "its data set has changed since its statistics were sent",
            "put the data set back as it was, or run the study again from its vocabulary phase",
        )
    try:
        store = agreed_store(site, request.task, vocabulary.hash)
    except InputFault:
        dataset, windows = _windows(site, request.task)
        windows = translated(windows, dataset.units(), vocabulary, site.name)
        path = store_path(site, request.task, vocabulary.hash)
        path.parent.mkdir(parents=True, exist_ok=True)
        store = prepare_store(path, windows, vocabulary, request.task)
        vocabulary.save(vocabulary_path(site, vocabulary.hash))
    if request.noisy is not None:
        return PrepareReply(
            site=site.name,
            vocabulary_hash=vocabulary.hash,
            unknown_codes=None,
            seconds=round(time.perf_counter() - began),
        )
    header = store.header
    named = publishable(header.unknown_subjects, site.policy) is not None
    people = len(np.unique(store.subject_id))
    return PrepareReply(
        site=site.name,
        vocabulary_hash=vocabulary.hash,
        triplets=header.triplets if publishable(people, site.policy) is not None else None,
        unknown_triplets=sum(header.unknown_codes.values()) if named else None,
        unknown_codes=len(header.unknown_codes) if named else None,
        outside={
            code: values
            for code, (values, subjects) in header.outside.items()
            if publishable(subjects, site.policy) is not None
        },
        seconds=time.perf_counter() - began,
    )


def _windows_path(site: SiteConfig, task: TaskConfig) -> Path:
    return site.cache / f"windows-{task.key}"


def _windows(site: SiteConfig, task: TaskConfig) -> tuple[MedsDataset, Windows]:
    """The site's windows, cut by whoever asks first."""
    dataset = MedsDataset.open(site.data)

    def cut() -> Windows:
        windows = cut_windows(dataset, task)
        if fingerprint_of(site, task) != known:
            raise InputFault(
                f"site {site.name}", "its data set changes while it is read", "ask again when it is complete"
            )
        return windows

    known = fingerprint_of(site, task)
    return dataset, kept_windows(_windows_path(site, task), known, task, cut)
