"""One small model on a synthetic cohort whose truth is known, trained once for all tests here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hymate.config import FinetuneConfig, ModelConfig, PretrainConfig, TaskConfig, VocabularyConfig
from hymate.data.meds import MedsDataset
from hymate.data.statistics import code_statistics
from hymate.data.store import TripletStore
from hymate.data.synthetic import Cohort, SyntheticConfig, write_cohort
from hymate.data.tasks import cut_windows
from hymate.data.vocabulary import build_vocabulary
from hymate.evaluate.explanation.stays import stays_in
from hymate.train.alone import train_alone
from hymate.train.saved_model import SavedModel, new_model, save_model

MODEL = ModelConfig(
    d_model=16, mamba_blocks=1, d_state=4, attention_heads=2, dropout=0.1, d_static=4, value_clip=4.0,
    d_summary=16, value_embedding="affine",
)  # fmt: skip
FINETUNE = FinetuneConfig(rounds=6, learning_rate=5e-3, clip_norm=1.0, batch_size=16)
TASK = TaskConfig()


@dataclass(frozen=True)
class Trained:
    """`noise` saw the same stays under shuffled labels, `untrained` none."""

    data: Path
    run: Path
    saved: SavedModel
    noise: SavedModel
    untrained: SavedModel
    store: TripletStore
    truth: dict[str, Any]
    """`signal_in` of the task."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("explained")
    cohort = SyntheticConfig(hospitals=1, stays=1000, base="alike", decoys=2, signal=6.0)
    write_cohort(Cohort(cohort), folder / "cohort")
    data = folder / "cohort" / "hospital_1"
    dataset = MedsDataset.open(data)
    windows = cut_windows(dataset, TASK)
    statistics = code_statistics(windows, dataset.units(), 1)
    vocabulary = build_vocabulary({"here": statistics}, VocabularyConfig())
    saved = SavedModel("test", new_model(MODEL, TASK, vocabulary, 0), MODEL, TASK, vocabulary)
    noise = replace(saved, model=new_model(MODEL, TASK, vocabulary, 0))
    none = PretrainConfig(rounds=0)
    with stays_in(saved, data) as store:
        train_alone(store, saved.model, none, FINETUNE, 0)
        shuffled = replace(store, label=np.random.default_rng(0).permutation(store.label))
        train_alone(shuffled, noise.model, none, FINETUNE.model_copy(update={"rounds": 2}), 0)
        for each in (saved, noise):
            each.model.eval()
        save_model(folder / "run" / "model", saved)
        truth = json.loads((folder / "cohort" / "truth.json").read_text())
        signal = truth["tasks"][TASK.name]["signal_in"]
        untrained = replace(saved, model=new_model(MODEL, TASK, vocabulary, 5).eval())
        yield Trained(data, folder / "run", saved, noise, untrained, store, signal)
