"""PhysioNet 2012: the real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hymate.data.challenge_codes import PARAMETERS
from hymate.data.meds import MedsDataset
from hymate.data.physionet2012 import ADMISSION
from tests.hymate.data.prepared_challenge import prepare


@pytest.fixture(scope="module")
def real(physionet2012_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Sets b and c as four hospitals: the folder and its summary."""
    out = tmp_path_factory.mktemp("physionet2012") / "sites"
    return out, prepare(physionet2012_raw, out, site_by="icu_type")


def test_the_real_files_hold_the_known_stays(
    real: tuple[Path, dict[str, Any]], physionet2012_raw: Path
) -> None:
    """7,991 usable stays, median 425 observations, at most 1,191, 568 + 585 deaths."""
    out, summary = real
    assert {name: figures["stays"] for name, figures in summary["sites"].items()} == {
        "coronary_care": 1188,
        "cardiac_surgery": 1654,
        "medical": 2809,
        "surgical": 2340,
    }
    assert summary["total"]["stays"] == 7991
    assert summary["total"]["median_observations"] == 425
    assert summary["total"]["observations"] == 3_484_499
    assert summary["left_out"] == {
        "rows without a parameter": 2403,
        "stays with fewer than 6 rows": 9,
        "exact duplicates": 0,
        "static values missing (negative)": 3833,
        "dynamic values missing (negative)": 927,
        "observations after 48 h": 0,
    }
    datasets = [MedsDataset.open(out / name) for name in summary["sites"]]
    dynamic = pl.concat([dataset.events() for dataset in datasets]).drop_nulls("time")
    assert dynamic.group_by("subject_id").len()["len"].max() == 1191
    assert set(dynamic["code"].unique()) == set(PARAMETERS)
    assert sum(len(dataset.labels("length_of_stay")) for dataset in datasets) == 7891
    labels = pl.concat([dataset.labels("in_hospital_mortality") for dataset in datasets])
    deaths = set(labels.filter(pl.col("label") == 1)["subject_id"])
    for letter, count in (("b", 568), ("c", 585)):
        listed = pl.read_csv(physionet2012_raw / f"Outcomes-{letter}.txt")["RecordID"]
        assert len(deaths & set(listed)) == count


def test_a_real_stay_is_as_its_file_says(real: tuple[Path, dict[str, Any]]) -> None:
    stay = MedsDataset.open(real[0] / "cardiac_surgery").events().filter(pl.col("subject_id") == 142675)
    minute = (pl.col("time") - ADMISSION).dt.total_minutes()
    first = stay.drop_nulls("time").head(4).select(minute, "code", "numeric_value").rows()
    assert first == [(0, "Weight", 85), (44, "pH", 7.5), (44, "PaCO2", 32), (44, "PaO2", 378)]
    static = stay.filter(pl.col("time").is_null()).select("code", "numeric_value").rows()
    assert set(static) >= {("AGE", 70.0), ("GENDER//M", None), ("ICU_TYPE//cardiac_surgery", None)}


def test_the_real_splits_are_stratified(real: tuple[Path, dict[str, Any]]) -> None:
    out, summary = real
    for name, figures in summary["sites"].items():
        dataset = MedsDataset.open(out / name)
        splits = dataset.splits()
        assert dict(splits.group_by("split").len().rows()) == figures["splits"]
        rates = splits.join(dataset.labels("in_hospital_mortality"), on="subject_id").group_by("split")
        share = figures["deaths"] / figures["stays"]
        assert rates.agg(pl.col("label").mean())["label"].to_list() == pytest.approx([share] * 3, abs=0.01)
