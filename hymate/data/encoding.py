"""Windows under a vocabulary become numbers: indices, scaled values, static vectors.

The windows are in the vocabulary's codes and units already: see `hymate.data.mapping.translated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.scaling import Scaler
from hymate.data.tasks import Windows
from hymate.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Encoded:
    """The arrays of a `TripletStore` by name, and what of the windows is not in them as it was.

    `unknown_codes` counts the triplets dropped for want of a code, `unknown_subjects` the people they
    are of; `unknown_static` counts the stays that have a static code the vocabulary lacks. `outside`:
    code -> (values out of its range, people they are of); static codes too. `static_codes` names the
    numbers in the array `static_code`.
    """

    arrays: dict[str, npt.NDArray[Any]]
    unknown_codes: dict[str, int]
    unknown_subjects: int
    unknown_static: dict[str, int]
    outside: dict[str, tuple[int, int]]
    static_codes: tuple[str, ...]


def encode(windows: Windows, vocabulary: Vocabulary, splits: Sequence[str]) -> Encoded:
    """Every stay of `windows` in the same order; `splits` gives the split names their numbers."""
    stays, triplets = windows.stays, windows.triplets
    subject = stays["subject_id"].to_numpy()
    index, unknown = _positions(triplets["code"], vocabulary.index)
    stay = triplets["stay"].to_numpy()
    known = index > 0
    unknown_subjects = len(np.unique(subject[stay[~known]]))
    value, outside = Scaler(vocabulary.codes, vocabulary.clip_z).scaled(triplets["value"].to_numpy(), index)
    names = [entry.code for entry in vocabulary.codes]
    out_of_range = _tally(names, index[outside], subject[stay[outside]])
    if vocabulary.outside == "drop":
        known &= ~outside
    offset = np.zeros(len(stays) + 1, np.int64)
    np.cumsum(np.bincount(stay[known], minlength=len(stays)), out=offset[1:])
    static, unknown_static, static_out_of_range = _static_vectors(windows, vocabulary)
    who, static_codes = _static_rows(windows)
    number = {name: i for i, name in enumerate(splits)}
    arrays = {
        "time": triplets["hours"].to_numpy()[known],
        "code": index[known],
        "value": value[known],
        "offset": offset,
        "static": static,
        "label": stays["label"].fill_null(float("nan")).to_numpy(),
        "split": stays["split"].replace_strict(number, return_dtype=pl.Int8).to_numpy(),
        "subject_id": subject,
        "prediction_time": stays["prediction_time"].cast(pl.Datetime("us")).to_physical().to_numpy(),
        "numeric": np.array([False, *(entry.numeric for entry in vocabulary.codes)]),
        **who,
    }
    return Encoded(
        arrays=arrays,
        unknown_codes=unknown,
        unknown_subjects=unknown_subjects,
        unknown_static=unknown_static,
        outside=out_of_range | static_out_of_range,
        static_codes=static_codes,
    )


def _positions(codes: pl.Series, index: dict[str, int]) -> tuple[npt.NDArray[np.int32], dict[str, int]]:
    """Each row's position in a vocabulary (1..; 0: unknown), and how often each unknown code occurs."""
    distinct = codes.unique().sort()
    which = codes.cast(pl.Enum(distinct)).to_physical().to_numpy()
    lookup = np.array([index.get(code, 0) for code in distinct], np.int32)
    count = np.bincount(which, minlength=len(distinct))
    unknown = {code: int(count[i]) for i, code in enumerate(distinct) if lookup[i] == 0}
    position: npt.NDArray[np.int32] = lookup[which]
    return position, unknown


def _tally(
    names: Sequence[str], position: npt.NDArray[np.int32], subject: npt.NDArray[np.int64]
) -> dict[str, tuple[int, int]]:
    """Code -> (rows, distinct subjects), for the codes at `position` (1..)."""
    frame = pl.DataFrame({"position": position, "subject": subject})
    counted = frame.group_by("position").agg(pl.len(), pl.col("subject").n_unique()).sort("position")
    return {names[place - 1]: (rows, people) for place, rows, people in counted.iter_rows()}


def _static_vectors(
    windows: Windows, vocabulary: Vocabulary
) -> tuple[npt.NDArray[np.float32], dict[str, int], dict[str, tuple[int, int]]]:
    """The stays' static vectors, (N, S), columns as in `vocabulary.static_names`; codes that are unknown;
    and values out of range, by code.

    Where a subject has a code twice, the last row counts.
    """
    rows = windows.static.unique(["stay", "code"], keep="last", maintain_order=True)
    order = {entry.code: i for i, entry in enumerate(vocabulary.static, start=1)}
    position, unknown = _positions(rows["code"], order)
    stay, value = rows["stay"].to_numpy(), rows["numeric_value"].fill_null(float("nan")).to_numpy()
    score, outside = Scaler(vocabulary.static, vocabulary.clip_z).scaled(value, position)
    subject = windows.stays["subject_id"].to_numpy()[stay]
    tally = _tally([entry.code for entry in vocabulary.static], position[outside], subject[outside])
    missing = ~np.isfinite(value) | (outside if vocabulary.outside == "drop" else False)
    vectors = np.zeros((len(windows.stays), vocabulary.static_width), np.float32)
    column = 0
    for i, entry in enumerate(vocabulary.static, start=1):
        has = position == i
        if entry.numeric:
            has &= ~missing
            vectors[stay[has], column] = score[has]
            vectors[:, column + 1] = 1.0
            vectors[stay[has], column + 1] = 0.0
            column += 2
        else:
            vectors[stay[has], column] = 1.0
            column += 1
    return vectors, unknown, tally


def _static_rows(windows: Windows) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...]]:
    """All static rows as they are, by stay, and the codes that `static_code` numbers.

    Where a subject has a code twice, the last row counts.
    """
    rows = windows.static.unique(["stay", "code"], keep="last", maintain_order=True)
    rows = rows.sort("stay", maintain_order=True)
    codes = rows["code"].unique().sort()
    offset = np.zeros(len(windows.stays) + 1, np.int64)
    np.cumsum(np.bincount(rows["stay"].to_numpy(), minlength=len(windows.stays)), out=offset[1:])
    arrays: dict[str, npt.NDArray[Any]] = {
        "static_offset": offset,
        "static_code": rows["code"].cast(pl.Enum(codes)).to_physical().to_numpy(),
        "static_value": rows["numeric_value"].fill_null(float("nan")).to_numpy(),
    }
    return arrays, tuple(codes)
