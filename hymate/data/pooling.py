"""Several data sets as one: their windows below each other, their codes under one vocabulary."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.fingerprint import fingerprint
from hymate.data.label_sets import labels_of, numbers_of, with_label_sets
from hymate.data.mapping import translated
from hymate.data.meds import MedsDataset
from hymate.data.statistics import code_statistics
from hymate.data.tasks import Windows, cut_windows
from hymate.data.vocabulary import Vocabulary, build_vocabulary, mapping_lines
from hymate.errors import InputFault


@dataclass(frozen=True)
class PooledData:
    """Data sets in the order given. `names` are theirs, made different where two are the same."""

    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    """Of each data set as it was read (`hymate.data.fingerprint`)."""
    windows: Windows
    vocabulary: Vocabulary
    """Of the training split."""
    labels: npt.NDArray[np.float32]
    """Of the windows' stays, (N, K), K of `task.label_sets`; NaN where a stay lacks one."""
    auxiliary: npt.NDArray[np.float32]
    """Further labels of theirs, (N, A) of the label sets asked for; NaN where a stay lacks one."""


def pool_data(
    folders: Sequence[Path], task: TaskConfig, config: VocabularyConfig, auxiliary: Sequence[str] = ()
) -> PooledData:
    """Read MEDS data sets, cut their windows and build the vocabulary of all training stays.

    To `config.min_sites` each data set is a site. `auxiliary` names label sets of the same stays that are
    read too.

    Raises:
        InputFault: a data set cannot be read, has no such labels, shares a subject with another, has
            labels of another kind than the task, or their units disagree.
    """
    datasets = _named([MedsDataset.open(folder) for folder in folders])
    windows = {name: cut_windows(with_label_sets(dataset, task), task) for name, dataset in datasets.items()}
    units = {name: dataset.units() for name, dataset in datasets.items()}
    mapping = mapping_lines(config)
    statistics = {
        name: code_statistics(part, units[name], mapping=mapping, site=name) for name, part in windows.items()
    }
    vocabulary = build_vocabulary(statistics, config)
    agreed = {name: translated(part, units[name], vocabulary, name) for name, part in windows.items()}
    with tempfile.TemporaryDirectory(prefix="hymate-") as memory:
        fingerprints = tuple(
            fingerprint(folder, task.name, Path(memory) / f"{folder.name}.json") for folder in folders
        )
    pooled = pool_windows(agreed)
    return PooledData(
        names=tuple(datasets),
        fingerprints=tuple(fingerprints),
        windows=pooled,
        vocabulary=vocabulary,
        labels=labels_of(pooled.stays, datasets, task),
        auxiliary=numbers_of(pooled.stays, datasets, auxiliary),
    )


def tuning_joins_training(pooled: PooledData) -> PooledData:
    """The same stays, those of the tuning split now in the training split; the vocabulary stays as it is."""
    split = pl.when(pl.col("split") == "tuning").then(pl.lit("train")).otherwise(pl.col("split"))
    stays = pooled.windows.stays
    stays = stays.with_columns(split.cast(stays.schema["split"]).alias("split"))
    return replace(pooled, windows=replace(pooled.windows, stays=stays))


def pool_windows(parts: Mapping[str, Windows]) -> Windows:
    """The stays of all `parts`, numbered on; `InputFault` where two parts hold the same subject.

    One number would otherwise stand for two people, or one person be in two splits.
    """
    if len(parts) == 1:
        return next(iter(parts.values()))
    before = 0
    home: dict[int, str] = {}
    stays, triplets, static, left_out = [], [], [], dict[str, int]()
    for name, part in parts.items():
        for subject in part.stays["subject_id"].unique().to_list():
            other = home.setdefault(subject, name)
            if other != name:
                raise InputFault(
                    f"data set '{name}'",
                    f"subject {subject} is also in '{other}'",
                    "give every subject an id of its own before pooling",
                )
        shift = (pl.col("stay") + before).cast(pl.UInt32)
        stays.append(part.stays.with_columns(shift))
        triplets.append(part.triplets.with_columns(shift))
        static.append(part.static.with_columns(shift))
        for reason, count in part.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
        before += len(part.stays)
    return Windows(pl.concat(stays), pl.concat(triplets), pl.concat(static), left_out)


def _named(datasets: Sequence[MedsDataset]) -> dict[str, MedsDataset]:
    named: dict[str, MedsDataset] = {}
    for dataset in datasets:
        name, number = dataset.name, 1
        while name in named:
            number += 1
            name = f"{dataset.name} ({number})"
        named[name] = dataset
    return named
