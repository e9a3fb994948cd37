"""One data set dealt out to hospitals: everybody once, as the rule says, the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from hymate.data.meds import MedsDataset
from hymate.data.partition import PartitionConfig, partition_dataset
from hymate.data.synthetic import generate_cohort, write_cohort
from hymate.errors import InputFault

TASK = "in_hospital_mortality"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(generate_cohort(1, 400, seed=0), folder)
    (hospital,) = folder.glob("hospital_*")
    return hospital


def dealt(whole: Path, out: Path, **rule: Any) -> dict[str, MedsDataset]:
    partition_dataset(PartitionConfig(data=whole, **rule), TASK, out)
    return {path.name: MedsDataset.open(path) for path in sorted(out.iterdir())}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "rule", [{"by": "ETHNICITY"}, {"dirichlet": 1.0, "sites": 4}, {"size_skew": 0.5, "sites": 4}]
)
def test_everybody_is_in_one_hospital_with_all_that_is_known_of_them(
    whole: Path, tmp_path: Path, rule: dict[str, Any]
) -> None:
    before, after = MedsDataset.open(whole), dealt(whole, tmp_path / "a", **rule).values()
    for read in (MedsDataset.events, MedsDataset.splits, lambda data: data.labels(TASK)):
        together = pl.concat([read(part) for part in after])
        assert together.sort(together.columns).equals(read(before).sort(together.columns))
    assert {code: unit for part in after for code, unit in part.units().items()} == before.units()
    dealt(whole, tmp_path / "b", **rule)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    if "sites" in rule:
        dealt(whole, tmp_path / "c", **rule, seed=1)
        assert bytes_of(tmp_path / "a") != bytes_of(tmp_path / "c")


def test_a_code_makes_a_hospital_of_each_of_its_values(whole: Path, tmp_path: Path) -> None:
    parts = dealt(whole, tmp_path, by="ETHNICITY")
    assert list(parts) == ["A", "B", "C"]
    for name, part in parts.items():
        static = part.events().filter(pl.col("time").is_null())["code"].unique()
        assert [code for code in static if code.startswith("ETHNICITY//")] == [f"ETHNICITY//{name}"]


def test_dirichlet_skews_the_label_and_size_skew_the_size(whole: Path, tmp_path: Path) -> None:
    def shares(parts: dict[str, MedsDataset]) -> list[float]:
        return [float(part.labels(TASK)["label"].mean() or 0) for part in parts.values()]  # type: ignore[arg-type]

    even = shares(dealt(whole, tmp_path / "even", dirichlet=1000.0, sites=4))
    uneven = shares(dealt(whole, tmp_path / "uneven", dirichlet=1.0, sites=4))
    assert np.std(uneven) > 3 * np.std(even)
    equal = [len(part.splits()) for part in dealt(whole, tmp_path / "equal", size_skew=0, sites=4).values()]
    skewed = [len(part.splits()) for part in dealt(whole, tmp_path / "skew", size_skew=1.0, sites=4).values()]
    assert max(equal) - min(equal) <= 3
    assert max(skewed) > 2 * min(skewed)


def test_what_cannot_be_dealt_out_is_said(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputFault, match=r"no subject has a static code 'WARD//...'.*ETHNICITY"):
        dealt(whole, tmp_path / "a", by="WARD")
    with pytest.raises(InputFault, match="smallest is 200"):
        dealt(whole, tmp_path / "b", by="ETHNICITY", smallest=200)
    with pytest.raises(InputFault, match="smallest is 10"):
        dealt(whole, tmp_path / "c", size_skew=0, sites=100)
    for wrong in ({}, {"by": "GENDER", "sites": 3}, {"dirichlet": 1.0}, {"by": "GENDER", "size_skew": 1.0}):
        with pytest.raises(ValidationError):
            PartitionConfig(data=whole, **wrong)
