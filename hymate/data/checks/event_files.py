"""A data set's event files, read piece by piece: memory holds one piece, however large the file is.

A piece is made of whole runs (consecutive rows of one subject), so what concerns a single subject can be
checked inside a piece. Only a subject of more rows than `PIECE_ROWS` makes a piece larger.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from hymate.data.checks.findings import SHOWN, Example
from hymate.data.meds_files import EVENT_SCHEMA, REWRITE, first_line
from hymate.errors import InputFault

PIECE_ROWS = 1 << 19
"""Rows read at once; with what is computed on them about 300 MiB."""


@dataclass(frozen=True)
class ParquetFile:
    """One file of the data set: its path, its name in messages, and where its row groups end."""

    path: Path
    name: str
    schema: pa.Schema
    group_ends: tuple[int, ...]
    """Row, from 0, at which each row group ends (exclusive)."""

    @classmethod
    def open(cls, path: Path, base: Path) -> ParquetFile:
        """Read the footer only. `base`: the folder that `name` leaves out.

        Raises:
            InputFault: not a readable parquet file.
        """
        try:
            with pq.ParquetFile(path) as file:
                metadata, schema = file.metadata, file.schema_arrow
                sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        except (pa.ArrowException, OSError) as fault:
            what = f"is not a readable parquet file ({first_line(fault)})"
            raise InputFault(path, what, REWRITE) from None
        name = path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
        return cls(path, name, schema, tuple(accumulate(sizes)))

    @property
    def rows(self) -> int:
        return self.group_ends[-1] if self.group_ends else 0

    def row_group(self, row: int) -> int:
        """The row group that holds `row`."""
        return bisect_right(self.group_ends, row)


def examples(file: ParquetFile, found: pl.DataFrame) -> list[Example]:
    """The first few of `found`: `row`, and where known `subject_id` and `value` (String)."""
    shown = found.head(SHOWN)
    return [
        Example(
            row=line["row"],
            row_group=file.row_group(line["row"]),
            subject=line.get("subject_id"),
            value=line.get("value"),
        )
        for line in shown.iter_rows(named=True)
    ]


def read_pieces(file: ParquetFile, piece_rows: int) -> Iterator[pl.DataFrame]:
    """The file's events in pieces of whole runs.

    Yields:
        `row` Int64 (from 0 in the file), `subject_id`, `time`, `code` Categorical, `numeric_value`
        Float32, and `rest` UInt64 when there are other columns: a hash of them (nested ones left out).

    Raises:
        InputFault: a row group cannot be read.
    """
    held: list[pl.DataFrame] = []
    for part in _parts(file, piece_rows):
        last = part["subject_id"][-1]
        other = part["subject_id"].ne_missing(pl.Series([last], dtype=pl.Int64))
        # One past the last row of another subject: where the last run of this part begins.
        start = len(part) - (other.reverse().arg_max() or 0) if other.any() else 0
        if start or (held and held[-1]["subject_id"][-1] != last):
            yield pl.concat([*held, part[:start]], rechunk=True)
            held = []
        held.append(part[start:])
    if held:
        yield pl.concat(held, rechunk=True)


def _parts(file: ParquetFile, piece_rows: int) -> Iterator[pl.DataFrame]:
    """The file's rows in the order they are stored, never more than `piece_rows` at once."""
    names = [
        field.name
        for field in file.schema
        if field.name in EVENT_SCHEMA or not pa.types.is_nested(field.type)
    ]
    row = 0
    for group in range(len(file.group_ends)):
        try:
            # Without pre_buffer a row group of 10^8 rows is read page by page.
            with pq.ParquetFile(file.path, pre_buffer=False) as stream:
                for batch in stream.iter_batches(piece_rows, row_groups=[group], columns=names):
                    if batch.num_rows:
                        yield _normalise(pl.DataFrame(batch), row)
                        row += batch.num_rows
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as fault:
            what = f"row group {group} cannot be read ({first_line(fault)})"
            raise InputFault(file.path, what, REWRITE) from None


def _normalise(frame: pl.DataFrame, first_row: int) -> pl.DataFrame:
    others = [name for name in frame.columns if name not in EVENT_SCHEMA]
    number = (
        pl.col("numeric_value").cast(pl.Float32)
        if "numeric_value" in frame.columns
        else pl.lit(None, pl.Float32).alias("numeric_value")
    )
    rest = [pl.struct(others).hash().alias("rest")] if others else []
    return frame.select(
        pl.int_range(first_row, first_row + pl.len(), dtype=pl.Int64).alias("row"),
        "subject_id",
        "time",
        pl.col("code").cast(pl.String).cast(pl.Categorical),
        number,
        *rest,
    )
