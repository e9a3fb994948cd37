"""A hospital's own patient numbers become the int64 that MEDS wants."""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from hymate.data.tabular.reading import TableFile, read_file
from hymate.durable import flush_folder
from hymate.errors import InputFault

_INTEGER = r"^(?:0|-?[1-9]\d{0,17})$"
_HEADER = ("subject", "subject_id")


def mapping_path(out: Path) -> Path:
    """Where the private mapping of the data set `out` lies: beside it, so that copying `out` leaves it."""
    return out.parent / f"{out.name}.subjects.csv"


def number_subjects(files: Sequence[TableFile], mapping: Path) -> dict[str, int] | None:
    """Subject as written -> number; None when every subject is a whole number already.

    Numbers of an older mapping file stay as they are, so that a data set made anew keeps its ids; further
    subjects get the next numbers in the order of their names. "007" is a name, not 7.

    Raises:
        InputFault: the older mapping cannot be read.
    """
    names = pl.concat([file["subject"].cast(pl.String) for file in files]).unique().sort()
    if names.str.contains(_INTEGER).all():
        return None
    known = _read(mapping) if mapping.exists() else {}
    unused = max(known.values(), default=0) + 1
    fresh = [name for name in names.to_list() if name not in known]
    return known | {name: number for number, name in enumerate(fresh, start=unused)}


def apply_numbers(file: TableFile, numbers: dict[str, int] | None) -> pl.Series:
    """The file's subjects as Int64, named `subject_id`."""
    names = file["subject"].cast(pl.String)
    if numbers is None:
        return names.cast(pl.Int64).alias("subject_id")
    return names.replace_strict(numbers, return_dtype=pl.Int64).alias("subject_id")


def write_mapping(mapping: Path, numbers: dict[str, int]) -> None:
    """Write the mapping in one step, readable for its owner alone (mode 600) from the first byte on."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows((name, number) for number, name in sorted((n, name) for name, n in numbers.items()))
    temporary = mapping.with_name(f".{mapping.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text.getvalue())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(mapping)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(mapping.parent)


def _read(mapping: Path) -> dict[str, int]:
    file = read_file(mapping, {name: name for name in _HEADER}, required=_HEADER)
    number = file["subject_id"].cast(pl.Int64, strict=False)
    remedy = "restore the file that was written here, or move it away to number anew"
    file.refuse(number.is_null() | number.is_duplicated(), "subject_id", "is no number of its own", remedy)
    file.refuse(file["subject"].is_duplicated(), "subject", "is there twice", remedy)
    if (number < 1).any():
        raise InputFault(mapping, "holds a number below 1", remedy)
    return dict(zip(file["subject"].cast(pl.String), number, strict=True))
