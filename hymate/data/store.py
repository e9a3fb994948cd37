"""The triplet store: what training reads. Flat memory-mapped arrays, opened in milliseconds.

A store is a site's private cache of one data set's stays for one task under one vocabulary; it may be
deleted at any time and prepared again. On disk, exchanged in one step (`hymate.data.exchange`):

    STORE/store.json          header; names the folder below
    STORE/arrays-<random>/    time.npy, code.npy, value.npy, offset.npy, ...

A store is the old one until the header's rename and the new one after it, wherever a prepare is killed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hymate.config import TaskConfig
from hymate.data.exchange import exchange, locked
from hymate.data.store_header import HEADER, StoreHeader, damaged, read_header, refuse_mismatch
from hymate.errors import InputFault

if TYPE_CHECKING:
    from hymate.data.tasks import Windows
    from hymate.data.vocabulary import Vocabulary

ARRAYS = {
    "time": np.float32,
    "code": np.int32,
    "value": np.float32,
    "offset": np.int64,
    "static": np.float32,
    "label": np.float32,
    "split": np.int8,
    "subject_id": np.int64,
    "prediction_time": np.int64,
    "numeric": np.bool_,
    "static_offset": np.int64,
    "static_code": np.int32,
    "static_value": np.float32,
}


@dataclass(frozen=True, eq=False)
class TripletStore:
    """One site's stays for one task; the arrays are read-only and memory-mapped. N stays, T triplets.

    | array           | shape   | dtype   | meaning                                                       |
    |-----------------|---------|---------|---------------------------------------------------------------|
    | time            | (T,)    | float32 | hours since the window's start, ascending within a stay       |
    | code            | (T,)    | int32   | vocabulary index, 1..V                                        |
    | value           | (T,)    | float32 | z-score; 0.0 for an event without a number                    |
    | offset          | (N + 1,)| int64   | stay i holds triplets offset[i] to offset[i + 1]              |
    | static          | (N, S)  | float32 | columns as in `header.static_names`                           |
    | label           | (N,)    | float32 | NaN where there is none                                       |
    | split           | (N,)    | int8    | position in `header.splits`                                   |
    | subject_id      | (N,)    | int64   |                                                               |
    | prediction_time | (N,)    | int64   | microseconds since 1970, as in the data set                   |
    | numeric         | (V + 1,)| bool    | whether the code ever carries a number; index 0 is False      |
    | static_offset   | (N + 1,)| int64   | stay i has static rows static_offset[i] to static_offset[i + 1]|
    | static_code     | (R,)    | int32   | position in `header.static_codes`                             |
    | static_value    | (R,)    | float32 | as recorded, in the study's unit; NaN without a number        |

    `static` is what a model is fed; the static rows are who the patients are, for figures by group.
    """

    path: Path
    header: StoreHeader
    time: npt.NDArray[np.float32]
    code: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]
    offset: npt.NDArray[np.int64]
    static: npt.NDArray[np.float32]
    label: npt.NDArray[np.float32]
    split: npt.NDArray[np.int8]
    subject_id: npt.NDArray[np.int64]
    prediction_time: npt.NDArray[np.int64]
    numeric: npt.NDArray[np.bool_]
    static_offset: npt.NDArray[np.int64]
    static_code: npt.NDArray[np.int32]
    static_value: npt.NDArray[np.float32]

    @property
    def vocabulary_hash(self) -> str:
        """Hash of the vocabulary whose indices and z-scores the arrays hold."""
        return self.header.vocabulary_hash

    @property
    def task(self) -> TaskConfig:
        """The task whose windows the store holds."""
        return self.header.task

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Triplets of each stay, (N,)."""
        return np.diff(self.offset)

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Rows of the stays in `split` ("train", "tuning" or "held_out"), ascending."""
        return np.flatnonzero(self.split == self.header.splits.index(split))

    def __len__(self) -> int:
        return self.header.stays


def prepare_store(path: Path, windows: Windows, vocabulary: Vocabulary, task: TaskConfig) -> TripletStore:
    """Write the store of `windows` at `path`, in place of any older one, and open it.

    Killed at any point, it leaves the older store whole. Two prepares of one path run one after the
    other. Codes the vocabulary lacks are dropped and counted in the header; a stay left without any
    triplet by that stays, with length 0.

    Raises:
        InputFault: `path` cannot hold a store (it is a file, or not writable).
    """
    try:
        with locked(path):
            exchange(path, HEADER, "arrays", lambda folder: _write(folder, windows, vocabulary, task))
    except OSError as fault:
        raise InputFault(
            path, f"cannot hold a store: {fault.strerror or fault}", "give a writable folder with free space"
        ) from fault
    return open_store(path, dataset=windows.dataset, vocabulary_hash=vocabulary.hash, task=task)


def open_store(path: Path, *, dataset: str, vocabulary_hash: str, task: TaskConfig) -> TripletStore:
    """Map the store at `path`; milliseconds, whatever its size.

    Args:
        dataset: fingerprint of the data set as it is now (`hymate.data.fingerprint`).

    Raises:
        StoreMismatch: it was made from another data set, or for another vocabulary, task or schema version.
        InputFault: there is none, or it is damaged.
    """
    try:
        return _open(path, dataset, vocabulary_hash, task)
    except FileNotFoundError:
        pass  # replaced between header and arrays; the new header names a folder that is there
    try:
        return _open(path, dataset, vocabulary_hash, task)
    except FileNotFoundError as fault:
        raise damaged(path, f"'{fault.filename}' is missing") from None


def _open(path: Path, dataset: str, vocabulary_hash: str, task: TaskConfig) -> TripletStore:
    header = read_header(path)
    refuse_mismatch(path, header, dataset, vocabulary_hash, task)
    try:
        arrays = {name: _map(path / header.folder / f"{name}.npy") for name in ARRAYS}
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError) as fault:
        raise damaged(path, str(fault)) from None
    shapes = _shapes(header)
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype != ARRAYS[name]:
            raise damaged(path, f"{name} is {array.dtype} {array.shape}, not {shapes[name]}")
    return TripletStore(path=path, header=header, **arrays)


def _map(file: Path) -> npt.NDArray[Any]:
    try:
        # As a plain array: np.memmap runs Python code at every slice.
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except ValueError:
        array: npt.NDArray[Any] = np.load(file, allow_pickle=False)  # of no elements: cannot be mapped
        return array


def _shapes(header: StoreHeader) -> dict[str, tuple[int, ...]]:
    stays, triplets = (header.stays,), (header.triplets,)
    return {
        "time": triplets,
        "code": triplets,
        "value": triplets,
        "offset": (header.stays + 1,),
        "static": (header.stays, len(header.static_names)),
        "label": stays,
        "split": stays,
        "subject_id": stays,
        "prediction_time": stays,
        "numeric": (header.codes + 1,),
        "static_offset": (header.stays + 1,),
        "static_code": (header.static_rows,),
        "static_value": (header.static_rows,),
    }


def _write(folder: Path, windows: Windows, vocabulary: Vocabulary, task: TaskConfig) -> str:
    """Write the arrays into the new `folder`, down to the disk; the header that will name it."""
    from hymate.data.encoding import encode
    from hymate.data.meds import SPLITS

    encoded = encode(windows, vocabulary, SPLITS)
    for name, kind in ARRAYS.items():
        with (folder / f"{name}.npy").open("wb") as file:
            _save(file, encoded.arrays[name].astype(kind, copy=False))
            os.fsync(file.fileno())
    header = StoreHeader(
        vocabulary_hash=vocabulary.hash,
        task=task,
        codes=vocabulary.size,
        static_names=vocabulary.static_names,
        splits=SPLITS,
        stays=len(encoded.arrays["label"]),
        triplets=len(encoded.arrays["time"]),
        unknown_codes=encoded.unknown_codes,
        unknown_static=encoded.unknown_static,
        left_out=windows.left_out,
        folder=folder.name,
        dataset=windows.dataset,
        unknown_subjects=encoded.unknown_subjects,
        outside=encoded.outside,
        static_codes=encoded.static_codes,
        static_rows=len(encoded.arrays["static_code"]),
    )
    return header.to_json()


def _save(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """`np.save`, but a disk that is full says so: numpy's own does not notice that the last bytes failed."""
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.data)
    file.flush()
