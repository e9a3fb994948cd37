"""Names of a MEDS data set and the reading of one of its parquet files, faults said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from meds.schema import held_out_split, train_split, tuning_split

from hymate.data.meds_names import LABELS as LABELS  # noqa: PLC0414  (found here, too)
from hymate.data.meds_names import parquet_files as parquet_files  # noqa: PLC0414
from hymate.errors import InputFault

SPLITS = (train_split, tuning_split, held_out_split)
"""MEDS' names; the order is the code a triplet store keeps (0, 1, 2)."""

EVENT_SCHEMA = pl.Schema(
    {"subject_id": pl.Int64(), "time": pl.Datetime("us"), "code": pl.String(), "numeric_value": pl.Float32()}
)
"""What the project reads of an event; `time` null = static, `numeric_value` null = none."""

REWRITE = "write it again from the source"


def read_schema(path: Path) -> pa.Schema:
    """Column names and types of a parquet file; InputFault when it cannot be read."""
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as fault:
        raise InputFault(path, f"is not a readable parquet file ({first_line(fault)})", REWRITE) from None


def read_table(path: Path, wanted: pa.Schema, nullable: tuple[str, ...] = ()) -> pl.DataFrame:
    """The columns of `wanted`, types checked; strings may be stored in any of arrow's encodings.

    Raises:
        InputFault: not readable, a column missing or of another type, a null outside `nullable`.
    """
    schema = read_schema(path)
    for field in wanted:
        if field.name not in schema.names:
            raise InputFault(path, f"column {field.name!r} is missing", "add it, see the MEDS standard")
        found = schema.field(field.name).type
        if not same_kind(found, field.type):
            what = f"column {field.name!r} is {found}, MEDS wants {field.type}"
            raise InputFault(path, what, "cast the column")
    try:
        table = pl.read_parquet(path, columns=wanted.names, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as fault:
        raise InputFault(path, f"cannot be read ({first_line(fault)})", REWRITE) from None
    table = table.with_columns(
        pl.col(field.name).cast(pl.String) for field in wanted if field.type == pa.string()
    )
    for field in wanted:
        if field.name not in nullable and table[field.name].null_count():
            row = table[field.name].is_null().arg_max()
            fault_in_row(path, row, f"column {field.name!r} is null", "every row needs it")
    return table


def same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column of type `found` is read where MEDS has `wanted`: any string, any float width."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if wanted == pa.string():
        return bool(
            pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
        )
    if wanted == pa.float32():
        return bool(pa.types.is_floating(found))
    return bool(found == wanted)


def fault_in_row(path: Path, row: int | None, what: str, remedy: str) -> NoReturn:
    """Raise InputFault for `row`, its row group named: what a person reads a large parquet file by."""
    metadata = pq.read_metadata(path)
    group, left = 0, row or 0
    while left >= metadata.row_group(group).num_rows:
        left -= metadata.row_group(group).num_rows
        group += 1
    raise InputFault(path, f"row {row} (row group {group}): {what}", remedy)


def first_line(fault: BaseException) -> str:
    """The first line of a library's message, fit for one line of ours."""
    return str(fault).strip().split("\n")[0][:160]
