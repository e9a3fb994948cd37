"""A trained model on the stays of its own run: figures, and the predictions they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hymate.data.store import TripletStore
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.evaluate.figures import Report, binary_report, regression_report
from hymate.train.config import TrainConfig
from hymate.train.prediction import predicted_values, tabulate, write_tables
from hymate.train.saved_model import SavedModel
from hymate.train.scoring import labelled


def evaluate(
    folder: Path | None,
    config: TrainConfig,
    saved: SavedModel,
    store: TripletStore,
    labels: NDArray[np.float32],
    split: str,
) -> dict[str, Report]:
    """A split's figures by label set. Its predictions are written below `folder`; without one, there are
    none, and no intervals."""
    rows = labelled(store, split)
    made = predicted_values(saved, store, rows)
    tables = tabulate(config.task, store, rows, made, labels[rows])
    if rows.size and folder is not None:
        several = len(tables) > 1
        write_tables(folder / "predictions" / (split if several else f"{split}.parquet"), tables)
    measure = regression_report if config.task.kind == "regression" else binary_report
    resamples = 0 if folder is None else config.evaluation.bootstrap
    settings = BootstrapSettings(resamples, config.evaluation.confidence, config.seed)
    reports = {}
    for column, name in enumerate(config.task.label_sets):
        known = ~np.isnan(labels[rows, column])
        # As the predictions are written: who measures the file finds the same figures.
        values = made[known, column].astype(np.float32).astype(np.float64)
        truth = labels[rows, column][known].astype(np.float64)
        order = np.lexsort((store.prediction_time[rows][known], store.subject_id[rows][known]))
        subjects = store.subject_id[rows][known][order]
        reports[name] = measure(truth[order], values[order], subjects, settings)
    return reports
