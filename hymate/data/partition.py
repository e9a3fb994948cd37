"""One MEDS data set dealt out to hospitals, subject by subject, by a rule and a seed.

    by           each value of a static code is a hospital: how data differ between wards or insurers
    dirichlet    hospitals differ in how often the label is positive (Hsu, Qi, Brown 2019, arXiv 1909.06335)
    size_skew    hospitals differ in size alone

Every subject keeps its split. The rules with a seed deal out the subjects of each split (and label) apart, so
that every hospital has all three. The same data, rule and seed give the same hospitals on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from hymate.data.meds import LABELS, SPLITS, MedsDataset, write_dataset
from hymate.data.meds_files import parquet_files
from hymate.errors import InputFault
from hymate.frozen import Count, Frozen, LabelSet, Positive

DRAWS = 100
"""So often a rule is tried before it counts as one that leaves a hospital too small."""
RULES = ("by", "dirichlet", "size_skew")


class PartitionConfig(Frozen):
    """Which data set is dealt out, and how. Exactly one rule."""

    data: Path
    """Folder of the MEDS data set; a relative path starts at the study file."""
    by: str | None = None
    """A static code without a number: `UNIT` makes a hospital of `UNIT//MEDICAL` and one of each other.
    Subjects that have none are left out."""
    dirichlet: Positive | None = None
    """alpha: each label's subjects are dealt out in shares drawn from Dirichlet(alpha, ..., alpha)."""
    size_skew: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    """Standard deviation of the log of a hospital's size; 0: all alike."""
    sites: Count | None = None
    """Number of hospitals, for the rules with a seed."""
    smallest: Count = 10
    """Training subjects that every hospital must have."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_rule(self) -> PartitionConfig:
        given = [rule for rule in RULES if getattr(self, rule) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one rule: by, dirichlet or size_skew (given: {given or 'none'})")
        if (self.sites is None) != (self.by is not None):
            raise ValueError("`sites` says how many hospitals dirichlet or size_skew make; `by` finds out")
        return self


def partition_dataset(config: PartitionConfig, task: LabelSet, folder: Path) -> None:
    """Write each hospital's MEDS data set to a folder of its name below `folder`.

    Raises:
        InputFault: the data set cannot be read, or the rule leaves a hospital with fewer training
            subjects than `smallest`.
    """
    dataset = MedsDataset.open(config.data)
    events, splits = dataset.events(), dataset.splits()
    home = _homes(config, events, splits, dataset.labels(task))
    labels = {name: _label_rows(dataset, name) for name in dataset.tasks()}
    codes = _code_table(dataset, events)
    parts = [frame.join(home, on="subject_id") for frame in (events, splits, *labels.values())]
    for name in home["site"].unique().sort():
        own_events, own_splits, *own_labels = (
            part.filter(pl.col("site") == name).drop("site") for part in parts
        )
        write_dataset(
            folder / name,
            name=name,
            events=own_events,
            splits=own_splits,
            labels=dict(zip(labels, own_labels, strict=True)),
            codes=codes.join(own_events, on="code", how="semi"),
        )


def _homes(
    config: PartitionConfig, events: pl.DataFrame, splits: pl.DataFrame, labels: pl.DataFrame
) -> pl.DataFrame:
    """`subject_id` and the `site` that has it."""
    if config.by is not None:
        home = _by_code(config.by, events)
        _refuse_small(config, home.join(splits, on="subject_id"))
        return home
    positive = labels.group_by("subject_id").agg(pl.col("label").max())
    subjects = splits.join(positive, on="subject_id", how="left").sort("subject_id")
    subjects = subjects.with_columns(pl.col("label").fill_null(0.0))
    for draw in _draws(config, subjects):
        home = draw.select("subject_id", "site")
        if _smallest(config, draw)[1] >= config.smallest:
            return home
    _refuse_small(config, draw)
    return home


def _by_code(code: str, events: pl.DataFrame) -> pl.DataFrame:
    static = events.filter(pl.col("time").is_null(), pl.col("code").str.starts_with(f"{code}//"))
    if static.is_empty():
        known = events.filter(pl.col("time").is_null())["code"].str.split("//").list.first().unique().sort()
        what = f"no subject has a static code '{code}//...'"
        raise InputFault("simulation.partition.by", what, f"known: {', '.join(known)}")
    home = static.select("subject_id", site=pl.col("code").map_elements(_site_name, return_dtype=pl.String))
    twice = home.unique().filter(pl.col("subject_id").is_duplicated())
    if len(twice):
        raise InputFault(
            "simulation.partition.by",
            f"subject {twice['subject_id'][0]} has more than one '{code}//...'",
            "name a code of which every subject has one value",
        )
    return home.unique().sort("subject_id")


def _site_name(code: str) -> str:
    """The value in a code, as a site may be called."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", code.split("//", 1)[1]).strip("_-") or "other"


def _draws(config: PartitionConfig, subjects: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Ways to deal the subjects out, each with its own random numbers."""
    sites = config.sites or 1
    names = [f"hospital_{number:0{len(str(sites))}d}" for number in range(1, sites + 1)]
    for attempt in range(DRAWS):
        rng = np.random.default_rng([config.seed, attempt])
        shares = _shares(config, rng, sites)
        site = np.empty(len(subjects), dtype=np.int64)
        for split in SPLITS:
            for labels, share in shares:
                rows = subjects.with_row_index().filter(pl.col("label").is_in(labels), split=split)["index"]
                site[rng.permutation(rows.to_numpy())] = _dealt(share, len(rows))
        yield subjects.with_columns(site=pl.Series([names[number] for number in site]))


def _shares(
    config: PartitionConfig, rng: np.random.Generator, sites: int
) -> list[tuple[list[float], NDArray[np.float64]]]:
    """Labels, and each hospital's share of the subjects that have them."""
    if config.dirichlet is not None:
        return [([label], rng.dirichlet(np.full(sites, config.dirichlet))) for label in (0.0, 1.0)]
    size = np.exp(rng.normal(0.0, config.size_skew or 0.0, sites))
    return [([0.0, 1.0], size / size.sum())]


def _dealt(share: NDArray[np.float64], subjects: int) -> NDArray[np.int64]:
    """So many subjects' hospitals, in proportion to the shares as nearly as whole subjects can be."""
    edges = np.round(np.cumsum(share) * subjects).astype(np.int64)
    edges[-1] = subjects
    return np.repeat(np.arange(len(share)), np.diff(edges, prepend=0))


def _smallest(config: PartitionConfig, homes: pl.DataFrame) -> tuple[str, int]:
    """The hospital with the fewest training subjects, and how many."""
    names = homes["site"].unique().to_list()
    training = homes.filter(split="train")
    counts = dict.fromkeys(names, 0) | dict(training.group_by("site").len().iter_rows())
    if config.sites is not None and len(counts) < config.sites:
        return "one hospital", 0
    name = min(sorted(counts), key=counts.__getitem__)
    return name, counts[name]


def _refuse_small(config: PartitionConfig, homes: pl.DataFrame) -> None:
    name, count = _smallest(config, homes)
    if count < config.smallest:
        raise InputFault(
            "simulation.partition",
            f"leaves {name} with {count} training subjects, smallest is {config.smallest}",
            "make fewer hospitals, deal out more evenly, or lower smallest",
        )


def _label_rows(dataset: MedsDataset, task: str) -> pl.DataFrame:
    """A label set as `write_dataset` takes it."""
    dataset.labels(task)  # checked
    return pl.concat([pl.read_parquet(path) for path in parquet_files(dataset.root / LABELS / task)])


def _code_table(dataset: MedsDataset, events: pl.DataFrame) -> pl.DataFrame:
    """Every code with its unit, where one is declared."""
    units = dataset.units()
    codes = events["code"].unique().sort()
    return pl.DataFrame(
        {"code": codes, "unit": pl.Series([units.get(code) for code in codes], dtype=pl.String)}
    )
