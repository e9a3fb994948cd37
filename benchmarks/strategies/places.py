"""Where a population's hospitals lie: laid out once for each seed, below OUT/data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from meds.schema import LabelSchema, SubjectSplitSchema, subject_splits_filepath

from benchmarks.strategies.files import PopulationConfig
from hymate.data.cohort.config import SizesConfig, SyntheticConfig
from hymate.data.cohort.sizes import stays_of
from hymate.data.cohort.write import Cohort, write_cohort
from hymate.data.meds_names import LABELS
from hymate.data.output import fresh_folder
from hymate.data.physionet2012 import prepare_physionet2012
from hymate.errors import InputFault
from server.simulation_config import PhysioNet2012Source, SimulationConfig

TUNING_SHARE = 0.2
"""Of the stays that are not held out, where the table says how many those are."""


@dataclass(frozen=True)
class Place:
    """The hospitals of one population under one seed. The same key, the same data."""

    source: SyntheticConfig | PhysioNet2012Source
    held_out: int | None
    flipped: tuple[str, str] | None = None
    """Site and task whose labels are the opposite of what happened."""

    @property
    def key(self) -> str:
        content = self.source.model_dump(mode="json", exclude_defaults=True, exclude={"raw"})
        kind = "synthetic" if isinstance(self.source, SyntheticConfig) else "physionet2012"
        text = json.dumps([kind, content, self.held_out, self.flipped], sort_keys=True)
        return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def folder(self, out: Path) -> Path:
        return out / "data" / self.key

    def sites(self, out: Path) -> dict[str, Path]:
        """Each hospital's MEDS data set, once they are laid out."""
        found = self.folder(out).resolve().glob("*/metadata/dataset.json")
        return {path.parent.parent.name: path.parent.parent for path in sorted(found)}

    def lay_out(self, out: Path) -> None:
        """Make the hospitals unless they are there; `InputFault` where that fails."""
        target = self.folder(out)
        if target.is_dir():
            return
        with fresh_folder(target) as folder:
            if isinstance(self.source, PhysioNet2012Source):
                raw, by = Path(self.source.raw), self.source.site_by
                prepare_physionet2012(raw, folder, site_by=by, seed=self.source.seed)
            elif self.held_out is None:
                write_cohort(Cohort(self.source), folder)
            else:
                self._with_more_held_out(self.source, self.held_out, folder)
            if self.flipped:
                flip_labels(folder / self.flipped[0], self.flipped[1])

    def _with_more_held_out(self, config: SyntheticConfig, held_out: int, folder: Path) -> None:
        each = tuple(stays_of(config, k) + held_out for k in config.numbers())
        larger = config.model_copy(update={"sizes": SizesConfig(distribution="list", each=each)})
        write_cohort(Cohort(larger), folder)
        for k in config.numbers():
            split_again(folder / config.name(k) / subject_splits_filepath, held_out, config.seed)


def place_of(
    simulation: SimulationConfig, population: PopulationConfig, seed: int, data_seed: int, *, reduced: bool
) -> Place:
    """The hospitals of a population under one seed."""
    source = simulation.synthetic or simulation.physionet2012
    if source is None:
        raise InputFault(
            population.study, "names data sets of its own", "give simulation.synthetic or physionet2012"
        )
    held_out = population.reduced.held_out if reduced else population.held_out
    return Place(source.model_copy(update={"seed": data_seed}), held_out)


def split_again(path: Path, held_out: int, seed: int) -> None:
    """Hold out `held_out` of a data set's subjects, and have a fifth of the others tune; by a hash of
    (seed, subject), so the order of the rows does not matter."""
    splits = pl.read_parquet(path)

    def rank(subject: int) -> bytes:
        return hashlib.sha256(f"{seed}/held-out/{subject}".encode()).digest()

    subjects = sorted(splits["subject_id"].to_list(), key=rank)
    tuning = held_out + round(TUNING_SHARE * (len(subjects) - held_out))
    split = {
        subject: "held_out" if place < held_out else "tuning" if place < tuning else "train"
        for place, subject in enumerate(subjects)
    }
    table = splits.with_columns(split=pl.col("subject_id").replace_strict(split, return_dtype=pl.String))
    pq.write_table(SubjectSplitSchema.align(table.to_arrow()), path)


def flip_labels(dataset: Path, task: str) -> None:
    """Write a data set's labels of one task as their opposites."""
    for path in sorted((dataset / LABELS / task).rglob("*.parquet")):
        table: Any = pl.read_parquet(path).with_columns(~pl.col("boolean_value"))
        pq.write_table(LabelSchema.align(table.to_arrow()), path)
