"""Small windows, vocabularies and stores for tests: every number in them is written in the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.statistics import code_statistics
from hymate.data.store import TripletStore, prepare_store
from hymate.data.tasks import Windows
from hymate.data.vocabulary import Vocabulary, VocabularyEntry, build_vocabulary

TASK = TaskConfig()
NAN = float("nan")

Triplet = tuple[float, str, float]


def windows(
    stays: Sequence[Sequence[Triplet]],
    *,
    subjects: Sequence[int] | None = None,
    splits: Sequence[str] | None = None,
    labels: Sequence[float | None] | None = None,
    static: Mapping[int, Sequence[tuple[str, float | None]]] | None = None,
) -> Windows:
    """Windows as `cut_windows` gives them, from lists of (hours, code, value) per stay."""
    count = len(stays)
    rows = [(i, *triplet) for i, stay in enumerate(stays) for triplet in stay]
    static_rows = [(i, *row) for i, entries in (static or {}).items() for row in entries]
    return Windows(
        stays=pl.DataFrame(
            {
                "stay": range(count),
                "subject_id": subjects if subjects is not None else range(100, 100 + count),
                "prediction_time": [datetime(2020, 1, 3)] * count,
                "split": splits if splits is not None else ["train"] * count,
                "label": labels if labels is not None else [0.0] * count,
                "observations": [len(stay) for stay in stays],
            },
            schema={
                "stay": pl.UInt32,
                "subject_id": pl.Int64,
                "prediction_time": pl.Datetime("us"),
                "split": pl.String,
                "label": pl.Float32,
                "observations": pl.UInt32,
            },
        ),
        triplets=pl.DataFrame(
            rows,
            schema={"stay": pl.UInt32, "hours": pl.Float32, "code": pl.String, "value": pl.Float32},
            orient="row",
        ),
        static=pl.DataFrame(
            static_rows,
            schema={"stay": pl.UInt32, "code": pl.String, "numeric_value": pl.Float32},
            orient="row",
        ),
        left_out={},
    )


def vocabulary(*codes: str, numberless: Sequence[str] = ()) -> Vocabulary:
    """Codes with mean 0 and std 1: the store then holds the values as they are."""
    return Vocabulary(
        codes=tuple(VocabularyEntry(code, "", 0.0, 1.0, code not in numberless) for code in codes),
        static=(),
    )


def random_stays(rng: np.random.Generator, lengths: Sequence[int], codes: int) -> list[list[Triplet]]:
    """Stays charted to the minute over 48 hours, with ties."""
    stays = []
    for length in lengths:
        minutes = np.sort(rng.integers(0, 2881, length))
        variables = rng.integers(0, codes, length)
        values = rng.normal(size=length)
        stays.append(
            [
                (minute / 60, f"code {variable}", value)
                for minute, variable, value in zip(minutes, variables, values, strict=True)
            ]
        )
    return stays


def random_store(path: Path, rng: np.random.Generator, lengths: Sequence[int], codes: int) -> TripletStore:
    """A store of `random_stays`, its vocabulary built from them."""
    made = windows(random_stays(rng, lengths, codes))
    learnt = build_vocabulary({"site": code_statistics(made, {})}, VocabularyConfig(min_count=1))
    return prepare_store(path, made, learnt, TASK)
