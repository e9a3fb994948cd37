"""From the real PhysioNet 2012 files to batches: every step on 48 hours of intensive care as charted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from hymate.config import PretrainConfig, TaskConfig, VocabularyConfig
from hymate.data.batching import TripletBatch, evaluation_batches, training_batches
from hymate.data.forecasting import fixed_forecast_draws, forecast_batches
from hymate.data.meds import SPLITS, MedsDataset
from hymate.data.physionet2012 import prepare_physionet2012
from hymate.data.statistics import code_statistics
from hymate.data.store import TripletStore, prepare_store
from hymate.data.tasks import Windows, cut_windows
from hymate.data.vocabulary import build_vocabulary

TASK = TaskConfig(name="in_hospital_mortality")


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    raw = os.environ.get("HYMATE_PHYSIONET2012")
    if not raw:
        if os.environ.get("HYMATE_REQUIRE_REAL_DATA") == "1":
            pytest.fail("HYMATE_PHYSIONET2012 is not set")
        pytest.skip("HYMATE_PHYSIONET2012 is not set")
    folder = tmp_path_factory.mktemp("real")
    prepare_physionet2012(Path(raw), folder / "meds", site_by="none")
    return cut_windows(MedsDataset.open(folder / "meds" / "all"), TASK)


def store_of(windows: Windows, path: Path, config: VocabularyConfig) -> TripletStore:
    vocabulary = build_vocabulary({"all": code_statistics(windows, {})}, config)
    return prepare_store(path, windows, vocabulary, TASK)


@pytest.fixture(scope="module")
def store(windows: Windows, tmp_path_factory: pytest.TempPathFactory) -> TripletStore:
    return store_of(windows, tmp_path_factory.mktemp("default") / "store", VocabularyConfig())


@pytest.fixture(scope="module")
def as_measured(windows: Windows, tmp_path_factory: pytest.TempPathFactory) -> TripletStore:
    config = VocabularyConfig.model_validate({"plausible": {"outside": "keep"}, "clip_z": 1e6})
    return store_of(windows, tmp_path_factory.mktemp("raw") / "store", config)


def padding_waste(batches: Iterable[TripletBatch]) -> float:
    shown = cells = 0
    for batch in batches:
        shown += int(batch.mask.sum())
        cells += batch.mask.numel()
    return 1.0 - shown / cells


def test_the_store_holds_the_challenge(store: TripletStore) -> None:
    assert store.header.codes == 37
    assert store.header.unknown_codes == {}
    assert 420 <= np.median(store.lengths) <= 430
    assert store.lengths.max() == TASK.max_observations
    assert store.time.min() >= 0.0
    assert store.time.max() <= 48.0
    everyone = np.concatenate([store.rows(split) for split in SPLITS])
    assert sorted(everyone) == list(range(len(store)))
    assert len(set(store.subject_id)) == len(store)
    assert 0.13 < store.label.mean() < 0.15

    train = np.isin(np.repeat(np.arange(len(store)), store.lengths), store.rows("train"))
    assert np.abs(store.value).max() <= VocabularyConfig().clip_z
    clipped = sum(values for values, _ in store.header.outside.values())
    assert 0 < clipped < 1e-3 * len(store.value)  # slips of the decimal point, not disease
    for index in range(1, store.header.codes + 1):
        score = store.value[train & (store.code == index)].astype(np.float64)
        assert abs(score.mean()) < 0.05
        # pH and white cells hold slips so large that most of the raw deviation is theirs.
        assert 0.02 < score.std(ddof=1) < 1.05 or not score.any()


def test_robust_scaling_is_not_misled_by_slips(windows: Windows, tmp_path: Path) -> None:
    store = store_of(windows, tmp_path / "store", VocabularyConfig(scaling="robust"))
    for index in range(1, store.header.codes + 1):
        score = store.value[store.code == index].astype(np.float64)
        middle = np.quantile(score, [0.25, 0.75])
        assert 1.2 < np.diff(middle)[0] < 1.5 or len(np.unique(score)) < 20  # 1.349 but for the sketch


def test_as_measured_every_code_has_mean_0_and_deviation_1(as_measured: TripletStore) -> None:
    store = as_measured
    assert store.header.outside == {}
    train = np.isin(np.repeat(np.arange(len(store)), store.lengths), store.rows("train"))
    for index in range(1, store.header.codes + 1):
        score = store.value[train & (store.code == index)].astype(np.float64)
        assert abs(score.mean()) < 1e-5
        assert score.std(ddof=1) == pytest.approx(1.0, abs=1e-5) or not score.any()


def test_padding_wastes_at_most_a_tenth(store: TripletStore) -> None:
    rng = np.random.default_rng(0)
    train, tuning, held_out = (store.rows(split) for split in SPLITS)
    config = PretrainConfig(batch_size=32, variable_dropout=0.2)
    assert padding_waste(training_batches(store, train, 32, rng, 0.0)) <= 0.10
    assert padding_waste(training_batches(store, train, 32, rng, 0.3)) <= 0.10
    assert padding_waste(batch.input for batch in forecast_batches(store, train, config, rng)) <= 0.10
    draws = fixed_forecast_draws(store, tuning, config, 3, seed=0)
    assert padding_waste(batch.input for batch in draws) <= 0.10
    assert padding_waste(evaluation_batches(store, held_out, 32)) <= 0.10
