"""One set of edges and groups per model; few sums for recalibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.evaluation import recalibrate
from client.question_limit import FILE, MOST_POINTS, check_question
from client.site import SiteConfig
from hymate.config import ModelConfig, TaskConfig
from hymate.errors import InputFault
from hymate.evaluation_config import AttributeConfig
from hymate.score_reports import Detail
from hymate.scoring_protocol import EvaluateRequest, RecalibrateRequest

WEIGHTS = {"w": np.arange(4, dtype=np.float32)}
OTHER = {"w": np.ones(4, dtype=np.float32)}


def request(detail: Detail | None, split: str = "held_out") -> EvaluateRequest:
    return EvaluateRequest(
        study="a",
        run="1",
        task=TaskConfig(),
        model=ModelConfig(),
        vocabulary_hash="x",
        seed=0,
        split=split,  # type: ignore[arg-type]
        detail=detail,
    )


def sums(detail: Detail, slope: float) -> RecalibrateRequest:
    asked = request(detail).model_dump()
    return RecalibrateRequest.model_validate({**asked, "points": {"": [(0.0, slope), (0.0, 1.0)]}})


def test_the_same_question_may_be_asked_again_and_another_not(tmp_path: Path) -> None:
    site = SiteConfig(name="north", data=tmp_path, state=tmp_path / "state")
    first = Detail(edges=(0.1, 0.5))
    for _ in range(2):
        check_question(site, request(first), WEIGHTS)
    moved = Detail(edges=(0.1, 0.51))
    regrouped = first.model_copy(update={"groups": (AttributeConfig(code="AGE", cuts=(64.0,)),)})
    for other in (moved, regrouped):
        with pytest.raises(InputFault, match="with other edges or groups"):
            check_question(site, request(other), WEIGHTS)
        with pytest.raises(InputFault, match="with other edges or groups"):
            check_question(site, sums(other, 1.0), WEIGHTS)
    check_question(site, request(moved), OTHER)  # another model has other scores
    check_question(site, request(moved, "tuning"), WEIGHTS)
    check_question(site, request(None), WEIGHTS)


def test_sums_are_given_a_few_times(tmp_path: Path) -> None:
    site = SiteConfig(name="north", data=tmp_path, state=tmp_path / "state")
    detail = Detail(edges=(0.5,))
    for number in range(MOST_POINTS):
        check_question(site, sums(detail, 1.0 + number / 100), WEIGHTS)
    check_question(site, sums(detail, 1.0), WEIGHTS)  # known: asked again
    with pytest.raises(InputFault, match=f"{MOST_POINTS} times"):
        check_question(site, sums(detail, 3.0), WEIGHTS)


def test_what_was_asked_must_be_readable(tmp_path: Path) -> None:
    site = SiteConfig(name="north", data=tmp_path, state=tmp_path / "state")
    path = tmp_path / "state" / "a" / "1" / FILE
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(InputFault, match="cannot read what it was asked"):
        check_question(site, request(Detail(edges=(0.5,))), WEIGHTS)


@pytest.mark.parametrize("point", [(0.0, 1e6), (-1e9, 2.0)])
def test_a_sum_so_steep_that_it_counts_is_refused(tmp_path: Path, point: tuple[float, float]) -> None:
    site = SiteConfig(name="north", data=tmp_path)
    steep = sums(Detail(edges=(0.5,)), 1.0).model_copy(update={"points": {"": [point]}})
    with pytest.raises(InputFault, match="steeper"):
        recalibrate(site, steep, None, None)  # type: ignore[arg-type]
