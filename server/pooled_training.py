"""Pooled training, in a simulation: one model of all sites' stays at one place.

No site shares rows, so only a simulation can say what that would reach. The vocabulary and the first weights
are the federation's. An epoch sees every stay once, as a round of the federation does; the optimiser takes as
many steps in it as the sites of a round take together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from hymate.data.mapping import translated
from hymate.data.meds import MedsDataset
from hymate.data.pooling import pool_windows
from hymate.data.store import prepare_store
from hymate.data.tasks import cut_windows
from hymate.data.vocabulary import Vocabulary
from hymate.train.alone import Progress, train_alone
from server.phases import first_model, weights_of
from server.run import Weights
from server.study import StudyConfig


def simulated_data(run: Path) -> dict[str, Path]:
    """Each simulated hospital's data set, as its site file in the run directory names it."""
    files = sorted(run.glob("sites/*/site.yaml"))
    return {file.parent.name: file.parent / yaml.safe_load(file.read_text())["data"] for file in files}


def train_pooled(
    study: StudyConfig,
    vocabulary: Vocabulary,
    sites: Mapping[str, Path],
    folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> Weights:
    """The best weights of a training on all sites' stays; killed, it goes on from what `folder` holds."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for name, path in sites.items():
        dataset = MedsDataset.open(path)
        parts[name] = translated(cut_windows(dataset, study.task), dataset.units(), vocabulary, name)
    store = prepare_store(folder / "store", pool_windows(parts), vocabulary, study.task)
    model = first_model(study, vocabulary)
    train_alone(
        store,
        model,
        study.pretrain,
        study.finetune,
        study.seed,
        state=folder / "state.safetensors",
        on_progress=on_progress,
    )
    return weights_of(model)
