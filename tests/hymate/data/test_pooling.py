"""Pooled data sets are one: stays numbered on, codes agreed as in a study."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hymate.cli import app
from hymate.command import run_command
from hymate.config import MappedCode, ModelConfig, TaskConfig, VocabularyConfig
from hymate.data.pooling import pool_data, pool_windows
from hymate.errors import InputFault
from hymate.train.prediction import predict
from hymate.train.saved_model import SavedModel, new_model
from tests.hymate.data.small import windows

TASK = TaskConfig()
FEW = VocabularyConfig(min_count=1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool") / "cohort"
    arguments = ["data", "synthetic", "--out", str(folder), "--hospitals", "2", "--stays", "30"]
    assert run_command(app, "hymate", arguments) == 0
    return folder


def test_stays_are_numbered_on_and_rows_stay_with_theirs() -> None:
    first = replace(windows([[(1.0, "HR", 80.0)], []], static={1: [("Age", 40.0)]}), left_out={"no split": 1})
    second = replace(
        windows([[(2.0, "HR", 70.0), (3.0, "RR", 9.0)]], subjects=[7], static={0: [("Age", 50.0)]}),
        left_out={"no split": 2},
    )
    pooled = pool_windows({"a": first, "b": second})
    assert pooled.stays["stay"].to_list() == [0, 1, 2]
    assert pooled.triplets.select("stay", "value").rows() == [(0, 80.0), (2, 70.0), (2, 9.0)]
    assert pooled.static.select("stay", "numeric_value").rows() == [(1, 40.0), (2, 50.0)]
    assert pooled.left_out == {"no split": 3}
    assert pooled.stays.schema == first.stays.schema


def test_a_subject_of_two_data_sets_is_refused() -> None:
    part = windows([[(1.0, "HR", 80.0)]], subjects=[7])
    with pytest.raises(InputFault, match="subject 7 is also in 'a'"):
        pool_windows({"a": part, "b": part})


def test_pooled_statistics_are_those_of_all_rows(cohort: Path) -> None:
    """Mean and spread of a code: computed from the training rows of both hospitals lying together."""
    pooled = pool_data([cohort / "hospital_1", cohort / "hospital_2"], TASK, FEW)
    assert pooled.names == ("hospital_1", "hospital_2")
    train = pooled.windows.stays.filter(pl.col("split") == "train").select("stay")
    entry = next(entry for entry in pooled.vocabulary.codes if entry.numeric)
    rows = (
        pooled.windows.triplets.join(train, on="stay")
        .filter(pl.col("code") == entry.code)["value"]
        .drop_nans()
    )
    values = rows.to_numpy().astype(np.float64)
    assert (entry.mean, entry.std) == pytest.approx((values.mean(), values.std(ddof=1)), rel=1e-9)
    assert pooled.labels.shape == (60, 1)
    assert (pooled.labels[:, 0] == pooled.windows.stays["label"].to_numpy()).all()


def test_local_codes_are_mapped_in_training_and_prediction(cohort: Path, tmp_path: Path) -> None:
    """A hospital that calls a code otherwise, in a tenth of the unit: same windows, same predictions."""
    original, local = cohort / "hospital_1", tmp_path / "local"
    shutil.copytree(original, local)
    expected = pool_data([original], TASK, FEW)
    code = next(entry.code for entry in expected.vocabulary.codes if entry.numeric)
    renamed = pl.col("code") == code
    for path in (local / "data").rglob("*.parquet"):
        frame = pl.read_parquet(path).with_columns(
            pl.when(renamed).then(pl.lit("mine")).otherwise("code").alias("code"),
            pl.when(renamed)
            .then(pl.col("numeric_value") * 10)
            .otherwise("numeric_value")
            .alias("numeric_value"),
        )
        frame.write_parquet(path)
    unit = next(entry.unit for entry in expected.vocabulary.codes if entry.code == code)
    line = MappedCode(local="mine", shared=code, factor=0.1, unit=unit)
    found = pool_data([local], TASK, FEW.model_copy(update={"mapping": (line,)}))
    assert_frame_equal(found.windows.triplets, expected.windows.triplets, rel_tol=1e-5)
    assert [entry.code for entry in found.vocabulary.codes] == [
        entry.code for entry in expected.vocabulary.codes
    ]

    config = ModelConfig(d_model=8, mamba_blocks=1, attention_heads=2, d_static=4)
    model = new_model(config, TASK, found.vocabulary, seed=0)
    saved = SavedModel("mapped", model, config, TASK, found.vocabulary)
    tables = [predict(saved, folder).tables[TASK.name] for folder in (original, local)]
    made = [table["predicted_boolean_probability"].to_numpy() for table in tables]
    assert made[0] == pytest.approx(made[1], abs=1e-5)
