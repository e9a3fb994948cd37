"""A whole cohort on disk: sizes, what is independent of what, and where the truth lies."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from meds.schema import CodeMetadataSchema, DataSchema, LabelSchema, SubjectSplitSchema
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from hymate.config import TaskConfig
from hymate.data.cohort.config import TASKS, SizesConfig
from hymate.data.cohort.hospital import generate_hospital
from hymate.data.cohort.sizes import require_feasible, stays_of
from hymate.data.meds import MedsDataset
from hymate.data.synthetic import Cohort, SyntheticConfig, write_cohort
from hymate.data.tasks import cut_windows
from hymate.errors import InputFault
from tests.hymate.data.cohort.made import LENGTH, MORTALITY, config

EVERY_SWITCH: dict[str, Any] = {
    "sizes": {"distribution": "lognormal", "smallest": 20, "largest": 60, "spread": 0.5},
    "tasks": list(TASKS),
    "observations": {"spread": 0.4, "long_share": 0.05, "long_count": 400},
    "covariate_shift": 0.5,
    "label_shift": 0.5,
    "concept_shift": 0.5,
    "coverage_gaps": 0.3,
    "unit_errors": {"share": 0.3},
    "clocks": {"duplicated_rows": 0.05, "shifted_share": 0.5},
    "severe_missing": 0.3,
    "demographics": "full",
    "disparity": {"group": "INSURANCE//NONE", "missing": 0.3, "label_bias": 0.2},
    "decoys": 2,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("every") / "cohort"
    write_cohort(Cohort(config(stays=40, base="varied", **EVERY_SWITCH)), out)
    return out


def test_hospital_17_of_20_is_hospital_17_of_1000() -> None:
    few, many = (generate_hospital(config(hospitals=n, stays=40, **EVERY_SWITCH), 17) for n in (20, 1000))
    assert (few.name, many.name) == ("hospital_17", "hospital_0017")
    assert_frame_equal(few.events, many.events)
    assert_frame_equal(few.splits, many.splits)
    assert_frame_equal(few.codes, many.codes)
    assert few.facts == many.facts
    for task in TASKS:
        assert_frame_equal(few.labels[task], many.labels[task])
        assert (few.outcomes[task].risk == many.outcomes[task].risk).all()


def test_hospitals_come_one_at_a_time() -> None:
    thousand = Cohort(SyntheticConfig(hospitals=1000, stays=100_000, sizes=SizesConfig(distribution="zipf")))
    assert len(thousand) == 1000
    assert len(Cohort(config(hospitals=1000, stays=20)).hospital(999).subjects) == 20
    first_two = itertools.islice(Cohort(config(hospitals=1000, stays=20)), 2)
    assert [hospital.name for hospital in first_two] == ["hospital_0001", "hospital_0002"]


def sizes(n: int = 200, stays: int = 300, **asked: Any) -> list[int]:
    made = config(hospitals=n, stays=stays, sizes=asked)
    return [stays_of(made, k) for k in made.numbers()]


def test_sizes_follow_their_distribution() -> None:
    assert sizes() == [300] * 200
    drawn = sizes(distribution="lognormal", spread=0.8, smallest=10, largest=100_000)
    assert np.log(np.median(drawn)) == pytest.approx(np.log(300), abs=0.2)
    assert np.log(drawn).std() == pytest.approx(0.8, abs=0.12)
    bounded = sizes(distribution="lognormal", spread=0.8, smallest=200, largest=400)
    assert (min(bounded), max(bounded)) == (200, 400)
    assert sizes(n=5, stays=1000, distribution="zipf", spread=1.0, smallest=10) == [1000, 500, 333, 250, 200]
    assert sizes(n=3, distribution="list", each=[30, 20, 40]) == [30, 20, 40]
    assert sizes(n=20, distribution="lognormal") == sizes(n=200, distribution="lognormal")[:20]


def test_written_sizes_are_the_ones_asked_for(tmp_path: Path) -> None:
    asked = config(sizes={"distribution": "list", "each": [30, 20, 40]})
    summary = write_cohort(Cohort(asked), tmp_path / "cohort")
    assert [site["stays"] for site in summary["sites"].values()] == [30, 20, 40]
    assert summary["total"]["stays"] == 90
    assert summary["total"]["deaths"] == sum(site["deaths"] for site in summary["sites"].values())
    events = [MedsDataset.open(tmp_path / "cohort" / f"hospital_{k}").events() for k in (1, 2, 3)]
    observed = pl.concat(events).drop_nulls("time")
    assert summary["total"]["observations"] == len(observed)
    assert summary["total"]["median_observations"] == observed.group_by("subject_id").len()["len"].median()


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"hospitals": 1000, "stays": 20_000}, "20,000,000 stays in 1000 hospitals"),
        (
            {"hospitals": 2, "stays": 5000, "observations": {"long_share": 1.0, "long_count": 50_000}},
            "hospital_1 would hold 250,000,000 triplets",
        ),
    ],
)
def test_a_cohort_too_large_is_refused_before_anything_is_written(
    asked: dict[str, Any], what: str, tmp_path: Path
) -> None:
    with pytest.raises(InputFault, match=what):
        require_feasible(config(**asked))
    with pytest.raises(InputFault, match=what):
        write_cohort(Cohort(config(**asked)), tmp_path / "cohort")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"sizes": {"each": [30, 30, 30]}}, "belong together"),
        ({"sizes": {"distribution": "list"}}, "belong together"),
        ({"sizes": {"distribution": "list", "each": [30]}}, "lists 1 hospitals, but hospitals is 3"),
        ({"sizes": {"smallest": 50, "largest": 40}}, "smallest 50 is above"),
        ({"tasks": []}, "at least 1 item"),
        ({"tasks": [MORTALITY, MORTALITY]}, "each once"),
        ({"signals": {"long_stay": 2.0}}, "follows length_of_stay"),
        ({"disparity": {"group": "UNIT//MEDICAL"}}, "needs demographics: full"),
        ({"clocks": {"time_zone": True, "shifted_hours": 0.5}}, "at least 1"),
        ({"coverage_gaps": float("nan")}, "less than or equal"),
    ],
)
def test_contradictions_are_refused(asked: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        config(**asked)


def test_with_every_switch_on_the_hospitals_are_meds(written: Path) -> None:
    for home in sorted(written.glob("hospital_*")):
        for path in home.glob("data/*/*.parquet"):
            DataSchema.validate(pq.read_table(path))
        for path in home.glob("labels/*/*.parquet"):
            LabelSchema.validate(pq.read_table(path))
        SubjectSplitSchema.validate(pq.read_table(home / "metadata/subject_splits.parquet"))
        CodeMetadataSchema.validate(pq.read_table(home / "metadata/codes.parquet"))
        dataset = MedsDataset.open(home)
        assert dataset.tasks() == sorted(TASKS)
        codes = pl.read_parquet(home / "metadata/codes.parquet")["code"]
        assert set(dataset.events()["code"]) <= set(codes)
        windows = cut_windows(dataset, TaskConfig())
        assert len(windows.stays) == len(dataset.labels(MORTALITY))


def test_the_truth_lies_beside_the_hospitals_and_in_no_file_of_theirs(written: Path) -> None:
    known = {"subject_id", "time", "code", "numeric_value", "text_value", "split", "prediction_time"}
    known |= {"boolean_value", "float_value", "integer_value", "categorical_value"}
    known |= {"description", "parent_codes", "unit"}
    for home in written.glob("hospital_*"):
        files = [path for path in home.rglob("*") if path.is_file()]
        for path in files:
            assert path.suffix in (".parquet", ".json")
            if path.suffix == ".parquet":
                assert set(pq.read_schema(path).names) <= known
            else:
                assert "risk" not in path.read_text()
    assert sorted(path.name for path in written.iterdir() if not path.name.startswith("hospital_")) == [
        "summary.json",
        "truth",
        "truth.json",
    ]


def test_truth_tables_have_a_row_for_every_label(written: Path) -> None:
    for task in TASKS:
        truth = pl.read_parquet(written / "truth" / f"{task}.parquet")
        keys = ["subject_id", "prediction_time"]
        for home in sorted(written.glob("hospital_*")):
            labels = MedsDataset.open(home).labels(task)
            own = truth.filter(pl.col("site") == home.name)
            assert len(own) == len(labels) > 0
            joined = labels.join(own, on=keys)
            assert len(joined) == len(labels)
            if task == LENGTH:
                assert (joined["label"] - joined["happened"]).abs().max() <= 0.051  # type: ignore[operator]
            else:
                assert own["risk"].is_between(0, 1).all()
                assert (own["recorded_risk"] <= own["risk"]).all()
                assert (joined["label"] <= joined["happened"]).all()
            assert own["observer"].null_count() == 0


def test_without_an_observer_its_column_is_empty(tmp_path: Path) -> None:
    write_cohort(Cohort(config(hospitals=1, stays=20)), tmp_path / "cohort")
    assert pl.read_parquet(tmp_path / "cohort/truth" / f"{MORTALITY}.parquet")["observer"].null_count() == 20
