"""Pooled training: what one model would reach if all hospitals' stays lay at one place."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.strategies.figures import Figures, scores_of
from benchmarks.strategies.processor_time import ProcessorTime
from hymate.data.meds import MedsDataset
from hymate.data.pooling import pool_data
from hymate.evaluate.histograms import count_scores
from hymate.evaluate.metrics import auroc, average_precision
from hymate.score_reports import Cells, ScoreReport
from hymate.train.alone import Progress
from hymate.train.scoring import labelled, score
from hymate.train.target import Tuning
from server.pooled_training import train_pooled
from server.study import StudyConfig


def figures_of_pooled(study: StudyConfig, folder: Path) -> Figures:
    """Train on all sites' stays, as `server.pooled_training` has it, and score each site's held-out stays.

    The vocabulary is that of the federation, which is merged from the same statistics.
    """
    assert study.simulation is not None
    assert study.simulation.sites is not None  # the job names them
    sites = study.simulation.sites
    pooled = pool_data([*sites.values()], study.task, study.vocabulary)
    processor, last = ProcessorTime(folder), [time.process_time()]

    def spent(progress: Progress) -> None:
        now = time.process_time()
        processor.add(progress.phase, now - last[0])
        last[0] = now

    trained = train_pooled(study, pooled.vocabulary, pooled.windows, folder, on_progress=spent)
    store, rows = trained.store, labelled(trained.store, "held_out")
    scores, labels = score(trained.model, store, rows, 64), store.label[rows].astype(np.float64)
    home = store.subject_id[rows]
    reports = {}
    for name, path in sites.items():
        subjects = MedsDataset.open(path).splits()["subject_id"].to_numpy()
        here = np.isin(home, subjects)
        reports[name] = report(labels[here], scores[here])
    rounds = [progress.tuning for progress in trained.rounds if progress.phase == "finetune"]
    return Figures(
        held_out=scores_of(reports),
        criteria=(None, *(_criterion(tuning) for tuning in rounds)),
        sites=1,
        seconds=processor.on("finetune"),
    )


def report(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> ScoreReport:
    """What a site would report of these stays, nothing held back."""
    return ScoreReport(
        n=labels.size,
        positives=int(labels.sum()),
        auroc=auroc(labels, scores),
        auprc=average_precision(labels, scores),
        cells=Cells.of(count_scores(labels, scores)),
    )


def _criterion(tuning: Tuning | None) -> float | None:
    if tuning is None or tuning.auroc is None or tuning.auprc is None:
        return None
    return tuning.auroc + tuning.auprc
