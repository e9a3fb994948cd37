"""Scores of the held-out stays under several models, kept at the site until the models are compared.

They are rows of patients: they lie in the site's `cache` and never leave it. What leaves is how the AUROCs of
two models differ, and how sure that is, which only who has both scores of each stay can say.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.site import SiteConfig
from hymate.durable import write_bytes
from hymate.evaluate.delong import auroc_difference
from hymate.scoring_protocol import CompareReply, CompareRequest, KeptScores, ModelKind, PairedDifference

if TYPE_CHECKING:
    from client.evaluation import ScoredSplit

FOLDER = "scores"


def keep_scores(site: SiteConfig, study: str, under: KeptScores, found: ScoredSplit) -> None:
    """Keep them in place of any earlier ones of the same run and name."""
    content = io.BytesIO()
    np.savez(
        content,
        subject=found.subjects,
        time=found.store.prediction_time[found.rows],
        label=found.labels,
        score=found.scores,
    )
    write_bytes(_path(site, study, under.run, under.kind), content.getvalue())


def compare(site: SiteConfig, request: CompareRequest) -> CompareReply:
    """The differences asked for, each None where scores of one model are not here or are of other stays."""
    pairs = [_difference(site, request, first, second) for first, second in request.pairs]
    return CompareReply(site=site.name, pairs=tuple(pairs))


def _difference(
    site: SiteConfig, request: CompareRequest, first: ModelKind, second: ModelKind
) -> PairedDifference | None:
    a, b = (_read(_path(site, request.study, request.run, kind)) for kind in (first, second))
    if not a or not b or any(not np.array_equal(a[key], b[key]) for key in ("subject", "time", "label")):
        return None
    found = auroc_difference(a["label"], a["score"], b["score"], a["subject"])
    return None if found is None else PairedDifference(value=found[0], variance=found[1])


def _read(path: Path) -> dict[str, np.ndarray]:
    """Empty where there is no such file, or it was damaged: the cache may be deleted at any time."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}


def _path(site: SiteConfig, study: str, run: str, kind: ModelKind) -> Path:
    return site.cache / FOLDER / study / run / f"{kind}.npz"
