"""Windows under a vocabulary become numbers: indices, z-scores, static vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.tasks import Windows
from hymate.data.vocabulary import Vocabulary, VocabularyEntry


@dataclass(frozen=True)
class Encoded:
    """The arrays of a `TripletStore` by name, and the codes that the vocabulary lacks.

    `unknown_codes` counts the triplets dropped, `unknown_static` the stays that have the code.
    """

    arrays: dict[str, npt.NDArray[Any]]
    unknown_codes: dict[str, int]
    unknown_static: dict[str, int]


def encode(windows: Windows, vocabulary: Vocabulary, splits: Sequence[str]) -> Encoded:
    """Every stay of `windows` in the same order; `splits` gives the split names their numbers."""
    stays, triplets = windows.stays, windows.triplets
    index, unknown = _positions(triplets["code"], vocabulary.index)
    known = index > 0
    index = index[known]
    offset = np.zeros(len(stays) + 1, np.int64)
    np.cumsum(np.bincount(triplets["stay"].to_numpy()[known], minlength=len(stays)), out=offset[1:])
    static, unknown_static = _static_vectors(windows.static, len(stays), vocabulary)
    number = {name: i for i, name in enumerate(splits)}
    arrays = {
        "time": triplets["hours"].to_numpy()[known],
        "code": index,
        "value": _z_scores(triplets["value"].to_numpy()[known], index, vocabulary.codes),
        "offset": offset,
        "static": static,
        "label": stays["label"].fill_null(float("nan")).to_numpy(),
        "split": stays["split"].replace_strict(number, return_dtype=pl.Int8).to_numpy(),
        "subject_id": stays["subject_id"].to_numpy(),
        "prediction_time": stays["prediction_time"].cast(pl.Datetime("us")).to_physical().to_numpy(),
        "numeric": np.array([False, *(entry.numeric for entry in vocabulary.codes)]),
    }
    return Encoded(arrays, unknown, unknown_static)


def _positions(codes: pl.Series, index: dict[str, int]) -> tuple[npt.NDArray[np.int32], dict[str, int]]:
    """Each row's position in a vocabulary (1..; 0: unknown), and how often each unknown code occurs."""
    distinct = codes.unique().sort()
    which = codes.cast(pl.Enum(distinct)).to_physical().to_numpy()
    lookup = np.array([index.get(code, 0) for code in distinct], np.int32)
    count = np.bincount(which, minlength=len(distinct))
    unknown = {code: int(count[i]) for i, code in enumerate(distinct) if lookup[i] == 0}
    position: npt.NDArray[np.int32] = lookup[which]
    return position, unknown


def _z_scores(
    value: npt.NDArray[np.float32], position: npt.NDArray[np.int32], entries: tuple[VocabularyEntry, ...]
) -> npt.NDArray[np.float32]:
    """(value - mean) / std of each row's code, computed in float64; 0.0 where there is no number."""
    mean = np.array([0.0, *(entry.mean for entry in entries)])
    std = np.array([1.0, *(entry.std for entry in entries)])
    score: npt.NDArray[np.float32] = ((value - mean[position]) / std[position]).astype(np.float32)
    score[~np.isfinite(score)] = 0.0
    return score


def _static_vectors(
    static: pl.DataFrame, stays: int, vocabulary: Vocabulary
) -> tuple[npt.NDArray[np.float32], dict[str, int]]:
    """The stays' static vectors, (N, S), columns as in `vocabulary.static_names`; and unknown codes.

    Where a subject has a code twice, the last row counts.
    """
    rows = static.unique(["stay", "code"], keep="last", maintain_order=True)
    order = {entry.code: i for i, entry in enumerate(vocabulary.static, start=1)}
    position, unknown = _positions(rows["code"], order)
    stay, value = rows["stay"].to_numpy(), rows["numeric_value"].fill_null(float("nan")).to_numpy()
    score = _z_scores(value, position, vocabulary.static)
    vectors = np.zeros((stays, vocabulary.static_width), np.float32)
    column = 0
    for i, entry in enumerate(vocabulary.static, start=1):
        has = position == i
        if entry.numeric:
            has &= np.isfinite(value)
            vectors[stay[has], column] = score[has]
            vectors[:, column + 1] = 1.0
            vectors[stay[has], column + 1] = 0.0
            column += 2
        else:
            vectors[stay[has], column] = 1.0
            column += 1
    return vectors, unknown
