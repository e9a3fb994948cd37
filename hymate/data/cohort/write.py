"""Hospitals that never were: a cohort whose signal, shifts and unfairness are known exactly.

Hospitals are made one after another and written as they come, so that a thousand of them need the
memory of one. The truth goes to `truth.json` and `truth/<task>.parquet` beside the hospitals' folders:
no file that a site reads holds any of it. docs/synthetic.md has the formulas and the switches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from hymate.data.cohort.config import SyntheticConfig, Task
from hymate.data.cohort.hospital import Hospital, Outcome, generate_hospital
from hymate.data.cohort.sizes import expected_triplets, require_feasible
from hymate.data.cohort.truth import Truth
from hymate.data.meds import SPLITS, write_dataset
from hymate.data.output import (
    MADE_BY,
    SUMMARY,
    TRUTH,
    TRUTH_TABLES,
    fresh_folder,
    refuse_foreign,
    require_space,
    write_json,
)

_BYTES_A_TRIPLET = 16  # on disk, compressed


@dataclass(frozen=True)
class Cohort:
    """Synthetic hospitals, made when they are asked for."""

    config: SyntheticConfig

    def __len__(self) -> int:
        return self.config.hospitals

    def __iter__(self) -> Iterator[Hospital]:
        return (self.hospital(k) for k in self.config.numbers())

    def hospital(self, k: int) -> Hospital:
        """Hospital k (1, 2, ...): the same however many there are."""
        return generate_hospital(self.config, k)

    def truth(self) -> dict[str, Any]:
        """What truth.json holds; makes every hospital once."""
        told = Truth(self.config)
        for hospital in self:
            told.add(hospital)
        return told.content()


def generate_cohort(hospitals: int = 4, stays: int = 600, seed: int = 0, signal: float = 1.0) -> Cohort:
    """A cohort without any switch: the one `make demo` trains on, where nothing is given."""
    return Cohort(SyntheticConfig(hospitals=hospitals, stays=stays, seed=seed, signal=signal))


def write_cohort(cohort: Cohort, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write `out/<hospital>/` as MEDS, the truth and summary.json beside them; returns the summary.

    Raises:
        InputFault: the cohort is too large, `out` is occupied or cannot be written, or the disk is full.
    """
    config = cohort.config
    refuse_foreign(out, force=force)
    require_feasible(config)
    triplets = sum(expected_triplets(config, k) for k in config.numbers())
    require_space(out, round(triplets * _BYTES_A_TRIPLET))
    told, counted = Truth(config), _Summary()
    with fresh_folder(out, replace=force) as folder:
        with _TruthTables(folder / TRUTH_TABLES) as tables:
            for hospital in cohort:
                write_dataset(
                    folder / hospital.name,
                    name=hospital.name,
                    events=hospital.events,
                    splits=hospital.splits,
                    labels=hospital.labels,
                    codes=hospital.codes,
                )
                tables.add(hospital)
                told.add(hospital)
                counted.add(hospital)
        truth = told.content()
        summary: dict[str, Any] = {"made_by": f"{MADE_BY} synthetic"}
        summary |= {str(key): truth[key] for key in ("seed", "signal", "bayes_auroc") if key in truth}
        summary |= counted.content()
        write_json(folder / TRUTH, truth)
        write_json(folder / SUMMARY, summary)
    return summary


class _TruthTables:
    """`truth/<task>.parquet`, one row group a hospital: `site`, `subject_id`, `prediction_time`, `risk`
    (of what happened; for length of stay the expected days), `recorded_risk` (of the label as written),
    `happened` (0 or 1, or days), and `observer` (null unless worked out)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[Task, pq.ParquetWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> _TruthTables:
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *fault: object) -> None:
        self._open.close()

    def add(self, hospital: Hospital) -> None:
        for task, outcome in hospital.outcomes.items():
            table = _truth_table(hospital, task, outcome).to_arrow()
            if task not in self._writers:
                writer = pq.ParquetWriter(self._folder / f"{task}.parquet", table.schema)
                self._writers[task] = self._open.enter_context(writer)
            self._writers[task].write_table(table)


def _truth_table(hospital: Hospital, task: Task, outcome: Outcome) -> pl.DataFrame:
    observer = pl.Series("observer", outcome.observer, dtype=pl.Float64)
    if outcome.observer is None:
        observer = pl.repeat(None, len(outcome.risk), dtype=pl.Float64, eager=True).alias("observer")
    return hospital.labels[task].select(
        pl.lit(hospital.name).alias("site"),
        "subject_id",
        "prediction_time",
        pl.Series("risk", outcome.risk),
        pl.Series("recorded_risk", outcome.recorded_risk),
        pl.Series("happened", outcome.happened.astype(np.float64)),
        observer,
    )


class _Summary:
    """The figures the command prints, hospital by hospital: only counts a stay are kept."""

    def __init__(self) -> None:
        self._sites: dict[str, Any] = {}
        self._observations: list[npt.NDArray[np.int64]] = []

    def add(self, hospital: Hospital) -> None:
        timed = hospital.events["subject_id"].to_numpy()[hospital.events["time"].is_not_null().to_numpy()]
        counts = np.bincount(np.searchsorted(hospital.subjects, timed), minlength=len(hospital.subjects))
        self._observations.append(counts)
        sizes = dict(hospital.splits["split"].value_counts().iter_rows())
        self._sites[hospital.name] = {
            "stays": len(hospital.subjects),
            "deaths": int(hospital.died.sum()),
            "observations": int(counts.sum()),
            "median_observations": float(np.median(counts)),
            "splits": {split: sizes.get(split, 0) for split in SPLITS},
        }

    def content(self) -> dict[str, Any]:
        sites = list(self._sites.values())
        total = {key: sum(site[key] for site in sites) for key in ("stays", "deaths", "observations")}
        total["median_observations"] = float(np.median(np.concatenate(self._observations)))
        splits = {split: sum(site["splits"][split] for site in sites) for split in SPLITS}
        return {"sites": self._sites, "total": {**total, "splits": splits}}
