"""Stays to measure with: PhysioNet-2012 where it is at hand, else random ones of the same lengths."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.meds import MedsDataset
from hymate.data.physionet2012 import prepare_physionet2012
from hymate.data.statistics import code_statistics
from hymate.data.store import TripletStore, prepare_store
from hymate.data.tasks import Windows, cut_windows
from hymate.data.vocabulary import Vocabulary, build_vocabulary

MEDIAN, SPREAD, LONGEST = 425, 0.35, 880  # of the number of observations, as in PhysioNet-2012
CODES = 90  # about what its vocabulary has


def store_of(raw: Path | None, stays: int, folder: Path) -> tuple[TripletStore, Vocabulary]:
    """A triplet store in `folder`: of all of PhysioNet-2012 in `raw`, or of `stays` random stays."""
    task = TaskConfig()
    if raw is None:
        windows, units = random_windows(stays), {}
    else:
        prepare_physionet2012(raw, folder / "meds", site_by="none")
        dataset = MedsDataset.open(folder / "meds" / "all")
        windows, units = cut_windows(dataset, task), dataset.units()
    vocabulary = build_vocabulary({"all": code_statistics(windows, units)}, VocabularyConfig())
    return prepare_store(folder / "store", windows, vocabulary, task), vocabulary


def random_windows(stays: int) -> Windows:
    """Random observations of log-normal number, all in the training split, one in seven labelled 1."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEDIAN), SPREAD, stays).astype(np.int64), 1, LONGEST)
    total = int(lengths.sum())
    stay = np.repeat(np.arange(stays, dtype=np.uint32), lengths)
    hours = (rng.random(total) * 48).astype(np.float32)
    code = np.array([f"CODE//{i}" for i in range(CODES)])[rng.integers(0, CODES, total)]
    triplets = {
        "stay": stay,
        "hours": hours,
        "code": code,
        "value": rng.normal(size=total).astype(np.float32),
    }
    return Windows(
        stays=pl.DataFrame(
            {
                "stay": np.arange(stays, dtype=np.uint32),
                "subject_id": np.arange(stays),
                "prediction_time": [datetime(2012, 1, 3)] * stays,
                "split": ["train"] * stays,
                "label": (rng.random(stays) < 1 / 7).astype(np.float32),
                "observations": lengths.astype(np.uint32),
            }
        ),
        triplets=pl.DataFrame(triplets).sort("stay", "hours"),
        static=pl.DataFrame(
            {
                "stay": np.arange(stays, dtype=np.uint32),
                "code": ["AGE"] * stays,
                "numeric_value": rng.normal(65, 15, stays).astype(np.float32),
            }
        ),
        left_out={},
    )
