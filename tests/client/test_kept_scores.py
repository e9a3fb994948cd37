"""What a site tells of two models on the same stays, and which scores it refuses to work out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError

from client.evaluation import ScoredSplit
from client.kept_scores import compare, keep_scores
from client.policy import check_left_out
from client.site import Policy, SiteConfig
from hymate.config import TaskConfig
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.evaluate.delong import auroc_difference
from hymate.scoring_protocol import CompareRequest, KeptScores, ModelKind, PairedDifference

LABELS = np.tile([0.0, 0.0, 1.0], 20)
FIRST, SECOND = (np.random.default_rng(seed).random(60) + 0.3 * LABELS for seed in (1, 2))


def site_of(folder: Path, **policy: Any) -> SiteConfig:
    return SiteConfig(name="north", data=folder, cache=folder / "cache", policy=Policy(**policy))


def scored(scores: np.ndarray, labels: np.ndarray = LABELS, shift: int = 0) -> ScoredSplit:
    people = np.arange(100, 200)
    store = SimpleNamespace(subject_id=people + shift, prediction_time=people)
    return ScoredSplit(labels, scores, cast(TripletStore, store), np.arange(len(scores)))


def asked(site: SiteConfig, *pairs: tuple[ModelKind, ModelKind], run: str = "r") -> list[Any]:
    return list(compare(site, CompareRequest(study="s", run=run, task=TaskConfig(), pairs=pairs)).pairs)


def test_the_difference_of_two_kept_models(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    keep_scores(site, "s", KeptScores(run="r", kind="federated"), scored(FIRST))
    keep_scores(site, "s", KeptScores(run="r", kind="local"), scored(SECOND))
    ab, ba, missing = asked(site, ("federated", "local"), ("local", "federated"), ("local", "pooled"))
    assert (ab.value, ab.variance) == auroc_difference(LABELS, FIRST, SECOND, np.arange(60))
    assert ba.value == -ab.value
    assert missing is None
    assert asked(site, ("federated", "local"), run="another") == [None]


@pytest.mark.parametrize(
    "other",
    [scored(SECOND[:59], LABELS[:59]), scored(SECOND, 1 - LABELS), scored(SECOND, shift=1)],
    ids=["fewer stays", "other labels", "other people"],
)
def test_scores_of_other_stays_are_not_compared(other: ScoredSplit, tmp_path: Path) -> None:
    site = site_of(tmp_path)
    keep_scores(site, "s", KeptScores(run="r", kind="federated"), scored(FIRST))
    keep_scores(site, "s", KeptScores(run="r", kind="local"), other)
    assert asked(site, ("federated", "local")) == [None]


@pytest.mark.parametrize("told", [{"value": 0.1, "variance": -1.0}, {"value": float("nan"), "variance": 1.0}])
def test_a_difference_that_cannot_be_is_no_reply(told: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PairedDifference(**told)


def test_a_cache_that_was_damaged_is_no_fault(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    keep_scores(site, "s", KeptScores(run="r", kind="federated"), scored(FIRST))
    (file,) = site.cache.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:50])
    assert asked(site, ("federated", "federated")) == [None]


def test_who_trains_for_a_model_that_leaves_a_site_out(tmp_path: Path) -> None:
    check_left_out(site_of(tmp_path), "")
    check_left_out(site_of(tmp_path), "south")
    with pytest.raises(InputFault, match="because it took no part"):
        check_left_out(site_of(tmp_path), "north")
    unwilling = site_of(tmp_path, leave_one_site_out=False)
    check_left_out(unwilling, "")
    with pytest.raises(InputFault, match=r"have the site change `policy.leave_one_site_out`"):
        check_left_out(unwilling, "south")
