"""Who trains, who tunes, who is held out: decided by subject, once, from the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from hymate.data.meds import SPLITS

TUNING_SHARE = 0.1
HELD_OUT_SHARE = 0.2
LINEAGE_SEED = 123


def stratified_splits(strata: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Split subjects 70 / 10 / 20 into train / tuning / held_out, stratum by stratum.

    Subjects are ordered by a hash of (seed, subject), so the result depends neither on the order
    of the rows nor on a random generator's version.

    Args:
        strata: one row per subject: `subject_id` Int64 and `stratum` (any type; null is a stratum).

    Returns:
        `subject_id` Int64, `split` String, sorted by subject.
    """
    rows: list[tuple[int, str]] = []
    train, tuning, held_out = SPLITS
    for subjects in _ordered_groups(strata, str(seed)):
        n_held_out = round(HELD_OUT_SHARE * len(subjects))
        n_tuning = round(TUNING_SHARE * len(subjects))
        for rank, subject in enumerate(subjects):
            name = held_out if rank < n_held_out else tuning if rank < n_held_out + n_tuning else train
            rows.append((subject, name))
    return _table(dict(rows))


def lineage_order(subjects: Sequence[int]) -> tuple[list[int], list[int]]:
    """STraTS' (train 80 %, validation 20 %) of subjects given in the order of the outcomes files.

    Shuffled by numpy's legacy generator with seed 123, cut after int(0.8 n): `np.random.seed(123)`,
    `np.random.shuffle` in https://github.com/sindhura97/STraTS, src/preprocess_physionet_2012.py. That
    generator's stream is frozen (NEP 19), so every version of numpy gives the same split.
    """
    order = list(subjects)
    np.random.RandomState(LINEAGE_SEED).shuffle(order)
    cut = int(0.8 * len(order))
    return order[:cut], order[cut:]


def with_held_out(strata: pl.DataFrame, held_out: set[int], seed: int, salt: str = "") -> pl.DataFrame:
    """`held_out` as given; of the others, 10 % of *all* subjects tune and the rest train.

    The tuning subjects are drawn stratum by stratum, so that whatever is chosen on them (the epoch to
    stop at, a setting) never saw a subject that is reported.

    Args:
        strata: as in `stratified_splits`.
        seed: of the draw of tuning subjects; `salt` makes another draw under the same seed.
    """
    split: dict[int, str] = {}
    for subjects in _ordered_groups(strata, f"{seed}/tuning/{salt}"):
        others = [subject for subject in subjects if subject not in held_out]
        n_tuning = round(TUNING_SHARE * len(subjects))
        split.update((subject, SPLITS[2]) for subject in subjects if subject in held_out)
        split.update((subject, SPLITS[1]) for subject in others[:n_tuning])
        split.update((subject, SPLITS[0]) for subject in others[n_tuning:])
    return _table(split)


def fold_splits(strata: pl.DataFrame, fold: int, folds: int, seed: int) -> pl.DataFrame:
    """The `fold`-th (1 to `folds`) of a stratified cross-validation: that fold is held out.

    The folds of one (`folds`, `seed`) are disjoint and hold every subject once; sizes differ by one at
    most, in each stratum and in total. The tuning subjects come from the other folds (`with_held_out`).
    """
    order = [subject for subjects in _ordered_groups(strata, f"{seed}/fold") for subject in subjects]
    return with_held_out(strata, set(order[fold - 1 :: folds]), seed, f"{fold} of {folds}")


def _ordered_groups(strata: pl.DataFrame, key: str) -> list[list[int]]:
    """The subjects of each stratum by a hash of (key, subject); strata in a fixed order."""
    groups: dict[object, list[int]] = {}
    for subject, stratum in strata.select("subject_id", "stratum").iter_rows():
        groups.setdefault(stratum, []).append(subject)
    for subjects in groups.values():
        subjects.sort(key=lambda subject: hashlib.sha256(f"{key}/{subject}".encode()).digest())
    return [groups[stratum] for stratum in sorted(groups, key=str)]


def _table(split: dict[int, str]) -> pl.DataFrame:
    schema = {"subject_id": pl.Int64, "split": pl.String}
    return pl.DataFrame(list(split.items()), schema=schema, orient="row").sort("subject_id")
