"""Hidden labels are unknown labels of training subjects; everything else stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from hymate.cli import app
from hymate.command import run_command
from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.label_share import hide_labels
from hymate.data.pooling import PooledData, pool_data
from hymate.errors import InputFault


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> PooledData:
    folder = tmp_path_factory.mktemp("share") / "cohort"
    arguments = ["data", "synthetic", "--out", str(folder), "--hospitals", "1", "--stays", "60"]
    assert run_command(app, "hymate", arguments) == 0
    return pool_data([Path(folder) / "hospital_1"], TaskConfig(), VocabularyConfig(min_count=1))


def known(pooled: PooledData, split: str) -> set[int]:
    """Subjects of a split with a label; the array and the table must agree."""
    stays = pooled.windows.stays
    assert (np.isnan(pooled.labels[:, 0]) == stays["label"].is_null().to_numpy()).all()
    chosen = ((stays["split"] == split) & stays["label"].is_not_null()).to_numpy()
    return set(stays["subject_id"].to_numpy()[chosen].tolist())


def test_a_share_of_training_subjects_keeps_its_labels(pooled: PooledData) -> None:
    all_, fewer = known(pooled, "train"), known(hide_labels(pooled, 0.25, seed=0), "train")
    assert len(fewer) == round(0.25 * len(all_))
    assert fewer < all_


def test_a_smaller_share_is_part_of_a_larger_one_and_seeds_differ(pooled: PooledData) -> None:
    small, large, other = (
        known(hide_labels(pooled, share, seed), "train") for share, seed in ((0.2, 0), (0.6, 0), (0.2, 1))
    )
    assert small < large
    assert small != other


def test_nothing_else_changes(pooled: PooledData) -> None:
    hidden = hide_labels(pooled, 0.1, seed=0)
    for split in ("tuning", "held_out"):
        assert known(hidden, split) == known(pooled, split)
    assert_frame_equal(hidden.windows.stays.drop("label"), pooled.windows.stays.drop("label"))
    assert hidden.windows.triplets is pooled.windows.triplets
    assert hidden.vocabulary is pooled.vocabulary
    seen = ~np.isnan(hidden.labels)
    assert (hidden.labels[seen] == pooled.labels[seen]).all()
    assert hidden.labels.dtype == np.float32
    assert hide_labels(pooled, 1.0, seed=0) is pooled


def test_further_labels_are_hidden_with_the_label(pooled: PooledData) -> None:
    further = np.arange(2 * len(pooled.labels), dtype=np.float32).reshape(-1, 2)
    hidden = hide_labels(replace(pooled, auxiliary=further), 0.25, seed=0)
    gone = np.isnan(hidden.labels[:, 0])
    assert np.isnan(hidden.auxiliary[gone]).all()
    assert (hidden.auxiliary[~gone] == further[~gone]).all()


def test_a_share_that_leaves_no_label_is_refused(pooled: PooledData) -> None:
    with pytest.raises(InputFault, match=r"label_share 0\.001: leaves no label of 42 training subjects"):
        hide_labels(pooled, 0.001, seed=0)
