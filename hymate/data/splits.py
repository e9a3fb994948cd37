"""Who trains, who tunes, who is held out: decided by subject, once, from the seed alone."""

from __future__ import annotations

import hashlib

import polars as pl

from hymate.data.meds import SPLITS

TUNING_SHARE = 0.1
HELD_OUT_SHARE = 0.2


def stratified_splits(strata: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Split subjects 70 / 10 / 20 into train / tuning / held_out, stratum by stratum.

    Subjects are ordered by a hash of (seed, subject), so the result depends neither on the order
    of the rows nor on a random generator's version.

    Args:
        strata: one row per subject: `subject_id` Int64 and `stratum` (any type; null is a stratum).

    Returns:
        `subject_id` Int64, `split` String, sorted by subject.
    """
    groups: dict[object, list[int]] = {}
    for subject, stratum in strata.select("subject_id", "stratum").iter_rows():
        groups.setdefault(stratum, []).append(subject)
    rows: list[tuple[int, str]] = []
    train, tuning, held_out = SPLITS
    for subjects in groups.values():
        subjects.sort(key=lambda subject: hashlib.sha256(f"{seed}/{subject}".encode()).digest())
        n_held_out = round(HELD_OUT_SHARE * len(subjects))
        n_tuning = round(TUNING_SHARE * len(subjects))
        for rank, subject in enumerate(subjects):
            name = held_out if rank < n_held_out else tuning if rank < n_held_out + n_tuning else train
            rows.append((subject, name))
    schema = {"subject_id": pl.Int64, "split": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("subject_id")
