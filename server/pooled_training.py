"""Pooled training, in a simulation: one model of all sites' stays at one place.

No site shares rows, so only a simulation can say what that would reach. The vocabulary and the first weights
are the federation's. An epoch sees every stay once, as a round of the federation does; the optimiser takes as
many steps in it as the sites of a round take together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from hymate.data.mapping import translated
from hymate.data.meds import MedsDataset
from hymate.data.pooling import pool_windows
from hymate.data.store import TripletStore, prepare_store
from hymate.data.tasks import Windows, cut_windows
from hymate.data.vocabulary import Vocabulary
from hymate.model.hymate import HyMaTE
from hymate.train.alone import Progress, train_alone
from server.phases import first_model
from server.study import StudyConfig


def simulated_data(run: Path) -> dict[str, Path]:
    """Each simulated hospital's data set, as its site file in the run directory names it."""
    files = sorted(run.glob("sites/*/site.yaml"))
    return {file.parent.name: file.parent / yaml.safe_load(file.read_text())["data"] for file in files}


def pooled_windows(study: StudyConfig, vocabulary: Vocabulary, sites: Mapping[str, Path]) -> Windows:
    """All sites' stays, as each site cuts them under the agreed vocabulary."""
    datasets = {name: MedsDataset.open(path) for name, path in sites.items()}
    return pool_windows(
        {
            name: translated(cut_windows(dataset, study.task), dataset.units(), vocabulary, name)
            for name, dataset in datasets.items()
        }
    )


@dataclass(frozen=True)
class Pooled:
    """A model trained on all sites' stays, with its best weights."""

    model: HyMaTE
    store: TripletStore
    """Those stays."""
    rounds: tuple[Progress, ...]


def train_pooled(
    study: StudyConfig,
    vocabulary: Vocabulary,
    windows: Windows,
    folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> Pooled:
    """Train on the pooled stays; killed, it goes on from what `folder` holds."""
    folder.mkdir(parents=True, exist_ok=True)
    store = prepare_store(folder / "store", windows, vocabulary, study.task)
    model = first_model(study, vocabulary)
    state = folder / "state.safetensors"
    trained = train_alone(
        store, model, study.pretrain, study.finetune, study.seed, state=state, on_progress=on_progress
    )
    return Pooled(model, store, trained.rounds)
