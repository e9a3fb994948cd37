"""A row that is no training: logistic regression or boosting on summary features, reported alike.

    python -m benchmarks.experiments.summary --model gradient_boosting --config FILE --out RUN

reads the same training file as `hymate train` (data, task, vocabulary, label_share, seed), fits on the
splits named by --fit-on, and writes report.json and predictions/held_out.parquet.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.experiments.files import SummaryKind
from hymate.data.label_share import hide_labels
from hymate.data.output import fresh_folder, write_json
from hymate.data.pooling import pool_data
from hymate.data.store import prepare_store
from hymate.errors import InputFault
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.evaluate.figures import binary_report
from hymate.evaluate.predictions import binary_predictions, write_predictions
from hymate.model.baselines.summary import fit_summary
from hymate.train.config import TrainConfig, load_train_config
from hymate.train.scoring import labelled


def fit(config: TrainConfig, model: SummaryKind, fit_on: tuple[str, ...], out: Path) -> dict[str, Any]:
    """Fit, score the held-out stays, write `out` whole; returns the report."""
    began = time.perf_counter()
    pooled = hide_labels(
        pool_data(config.data, config.task, config.vocabulary), config.label_share, config.seed
    )
    with tempfile.TemporaryDirectory(prefix="hymate-") as memory:
        store = prepare_store(Path(memory) / "store", pooled.windows, pooled.vocabulary, config.task)
        rows = np.concatenate([store.rows(split) for split in fit_on])
        fitted = fit_summary(model, store, rows, seed=config.seed)
        read = time.perf_counter()
        held_out = labelled(store, "held_out")
        scores, labels = fitted.score(store, held_out), store.label[held_out]
        keys = store.subject_id[held_out], store.prediction_time[held_out]
        order = np.lexsort(keys[::-1])
        settings = BootstrapSettings(config.evaluation.bootstrap, config.evaluation.confidence, config.seed)
        figures = binary_report(labels[order].astype(np.float64), scores[order], keys[0][order], settings)
        report = {
            "format": 1,
            "kind": "summary",
            "model": {"name": model, "fit_on": list(fit_on)},
            "seed": config.seed,
            "evaluation": {"held_out": figures.to_json()},
            "pretraining": {"epochs": 0, "from": None},
            "finetuning": {"epochs": 0, "best_epoch": 0},
            "seconds": {"training": read - began, "evaluation": time.perf_counter() - read},
        }
        with fresh_folder(out) as folder:
            table = binary_predictions(*keys, scores, labels, threshold=0.5)
            write_predictions(folder / "predictions" / "held_out.parquet", table)
            write_json(folder / "report.json", report)
    return report


def main(arguments: list[str] | None = None) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=get_args(SummaryKind), required=True)
    parser.add_argument("--config", type=Path, required=True, help="training file that names its data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fit-on", action="append", choices=("train", "tuning"), help="default: train")
    options = parser.parse_args(arguments)
    try:
        config = load_train_config(options.config)
        report = fit(config, options.model, tuple(options.fit_on or ("train",)), options.out)
    except InputFault as fault:
        print(f"benchmarks.experiments.summary: {fault}", file=sys.stderr)
        return 2
    print(json.dumps(report["evaluation"]["held_out"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
