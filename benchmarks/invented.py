"""An invented MEDS data set of any size, written in seconds: to measure with, not to learn from.

Stays as long as PhysioNet-2012's (log-normal number of observations, at most 880), charted to the minute
over 48 hours with many ties, by codes as MIMIC-IV's ETL names them and as uneven in frequency (Zipf). One
event in eleven comes after the prediction time: it is read and left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from meds.schema import (
    CodeMetadataSchema,
    DataSchema,
    LabelSchema,
    SubjectSplitSchema,
    code_metadata_filepath,
    subject_splits_filepath,
)

from hymate.data.meds import SPLITS

TASK = "in_hospital_mortality"
SPREAD, LONGEST = 0.35, 880
CODES = 150
HOURS = 48
FILES = 10
MINUTE = 60_000_000
STATIC = ("AGE", "GENDER//F")

Ints = npt.NDArray[np.int64]


def write_invented(root: Path, stays: int, triplets: int, seed: int = 0) -> None:
    """A data set of `stays` subjects with one stay each, whose windows hold `triplets` in all."""
    rng = np.random.default_rng(seed)
    lengths = stay_lengths(stays, triplets, rng)
    admitted = rng.integers(0, 10_000_000, stays) * MINUTE + np.datetime64("2130-01-01", "us").astype(
        np.int64
    )
    for number, subjects in enumerate(np.array_split(np.arange(stays), FILES)):
        if subjects.size:
            events = _events(subjects, lengths[subjects], admitted[subjects], rng)
            _write(DataSchema.align(events), root / "data" / f"{number}.parquet")
    splits = np.array(SPLITS)[rng.choice(3, stays, p=[0.7, 0.1, 0.2])]
    _write(
        SubjectSplitSchema.align(pa.table({"subject_id": np.arange(stays), "split": splits})),
        root / subject_splits_filepath,
    )
    labels = {
        "subject_id": np.arange(stays),
        "prediction_time": pa.array(admitted + HOURS * 60 * MINUTE, pa.timestamp("us")),
        "boolean_value": rng.random(stays) < 1 / 7,
    }
    _write(LabelSchema.align(pa.table(labels)), root / "labels" / TASK / "0.parquet")
    codes = pa.table({"code": code_names(), "unit": ["mg/dL"] * (len(STATIC) + CODES)})
    _write(CodeMetadataSchema.align(codes), root / code_metadata_filepath)


def code_names() -> list[str]:
    """The two static codes, then the dynamic ones, most frequent first."""
    return [*STATIC, *(f"LAB//{50_800 + i}//mg/dL" for i in range(CODES))]


def stay_lengths(stays: int, triplets: int, rng: np.random.Generator) -> Ints:
    """Log-normal numbers of observations, 1 to `LONGEST` each, `triplets` together."""
    if not stays <= triplets <= stays * LONGEST:
        raise ValueError(f"{stays} stays hold {stays} to {stays * LONGEST} triplets, not {triplets}")
    drawn = rng.lognormal(0.0, SPREAD, stays)
    lengths: Ints = np.clip(np.round(drawn * triplets / drawn.sum()), 1, LONGEST).astype(np.int64)
    while gap := triplets - int(lengths.sum()):
        room = np.flatnonzero(lengths < LONGEST if gap > 0 else lengths > 1)
        lengths[rng.permutation(room)[: abs(gap)]] += np.sign(gap)
    return lengths


def _events(subjects: Ints, lengths: Ints, admitted: Ints, rng: np.random.Generator) -> pa.Table:
    """The subjects' rows, sorted: two static ones, the window's, and a tenth as many after it."""
    inside = len(STATIC) + lengths
    count = inside + lengths // 10
    total = int(count.sum())
    place = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    static = place < len(STATIC)
    end = HOURS * 60
    minute = np.where(
        place < np.repeat(inside, count),
        rng.integers(0, end + 1, total),
        rng.integers(end + 1, 2 * end, total),
    )
    minute[static] = -1
    owner = np.repeat(np.arange(len(subjects)), count)
    minute = np.sort(owner * (4 * end) + minute) - owner * (4 * end)  # a subject's rows stay together
    time = np.repeat(admitted, count) + minute * MINUTE
    share = 1.0 / np.arange(1, CODES + 1)
    code = rng.choice(CODES, total, p=share / share.sum()) + len(STATIC)
    code[static] = np.tile(np.arange(len(STATIC)), len(subjects))
    value = rng.normal(80.0, 15.0, total).astype(np.float32)
    numberless = (code == 1) | (code % 10 == 9)
    names = pa.DictionaryArray.from_arrays(code.astype(np.int32), code_names()).cast(pa.string())
    return pa.table(
        {
            "subject_id": subjects[owner],
            "time": pa.array(time, pa.timestamp("us"), mask=static),
            "code": names,
            "numeric_value": pa.array(value, mask=numberless),
        }
    )


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
