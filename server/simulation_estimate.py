"""How long a simulation is likely to take, from one training step of its model on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import torch

from hymate.data.batching import TripletBatch
from hymate.model.hymate import HyMaTE, build_model
from server.study import StudyConfig

STAYS, LENGTH, CODES = 32, 128, 64
MESSAGE_S = 0.05
"""Of a site's answer, what is not training: files, weights, journal (docs/scaling.md)."""
TRAINED = 0.7
"""Share of a data set that is in its training split."""


def estimated_seconds(study: StudyConfig, data: Iterable[Path], sites: int, workers: int) -> float:
    """Of all planned rounds: early stopping makes it less, other programs on the machine more.

    Args:
        data: the data sets' files of events; all their rows count as observations of some stay.
    """
    rows = sum(map(_rows, data))
    phases = (study.pretrain, study.finetune)
    epochs = sum(phase.rounds * phase.local_epochs for phase in phases)
    answers = sites * sum(phase.rounds for phase in phases)
    return (rows * TRAINED * epochs * seconds_per_observation(study) + answers * MESSAGE_S) / workers


def _rows(path: Path) -> int:
    """Of one file; none where it is damaged, which is for its hospital to say."""
    try:
        return int(pq.ParquetFile(path).metadata.num_rows)
    except (OSError, ValueError):
        return 0


def seconds_per_observation(study: StudyConfig) -> float:
    """Of one training step on one thread, the second of two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = build_model(study.model, CODES, 0, study.task.lookback_hours, study.seed)
        _step(model)
        began = time.perf_counter()
        _step(model)
        return (time.perf_counter() - began) / (STAYS * LENGTH)
    finally:
        torch.set_num_threads(threads)


def _step(model: HyMaTE) -> None:
    shape = (STAYS, LENGTH)
    batch = TripletBatch(
        time=torch.linspace(0, 1, LENGTH).expand(shape).contiguous(),
        code=torch.randint(1, CODES + 1, shape),
        value=torch.zeros(shape),
        mask=torch.ones(shape, dtype=torch.bool),
        static=torch.zeros(STAYS, 0),
        label=torch.zeros(STAYS),
        row=torch.arange(STAYS),
    )
    model.classify(batch).square().mean().backward()  # type: ignore[no-untyped-call]
