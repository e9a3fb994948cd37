"""CSV and Parquet files of a hospital, read as they stand; every fault names file, row, column and value.

Rows are counted as a spreadsheet shows them: in a CSV file the header is row 1, in Parquet the first row is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import polars as pl
import pyarrow as pa
from pyarrow import csv

from hymate.data.meds_files import first_line
from hymate.errors import InputFault

SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class TableFile:
    """One file: `table` has a column a role ("subject", "time", ...), `names` says what the file calls them.

    Text is stripped, empty cells and the words for "missing" are null.
    """

    path: Path
    table: pl.DataFrame
    names: Mapping[str, str]
    first_row: int

    def __getitem__(self, role: str) -> pl.Series:
        return self.table[role]

    def has(self, role: str) -> bool:
        """Whether the file has a column for `role`."""
        return role in self.names

    def refuse(self, wrong: pl.Series, role: str, what: str, remedy: str) -> None:
        """Raise InputFault for the first row where `wrong` is true; null counts as false."""
        if wrong.any():
            self.fault(wrong.fill_null(False).arg_max() or 0, role, what, remedy)

    def fault(self, index: int, role: str, what: str, remedy: str) -> NoReturn:
        """Raise InputFault for row `index`, counted from 0 without the header."""
        value = self.table[role][index]
        shown = "empty" if value is None else f"value {str(value)[:60]!r}"
        where = f"row {index + self.first_row}, column {self.names[role]!r}"
        raise InputFault(self.path, f"{where}: {shown} {what}", remedy)

    def row(self, index: int) -> int:
        """The number a person knows row `index` by."""
        return index + self.first_row


def read_file(
    path: Path,
    columns: Mapping[str, str] | None,
    *,
    required: Sequence[str],
    separator: str = ",",
    missing: Sequence[str] = (),
) -> TableFile:
    """Read `path`: Parquet by its suffix, anything else as CSV (UTF-8, with or without BOM).

    Args:
        columns: role -> name of the column; None: every column, under its own name.
        required: roles whose cells may not be empty.
        missing: words that mean an empty cell.

    Raises:
        InputFault: no such file, not readable, a column missing or there twice, an empty required cell.
    """
    if not path.is_file():
        raise InputFault(path, "no such file", "check the path given")
    parquet = path.suffix == ".parquet"
    table = _read_parquet(path) if parquet else _read_csv(path, separator)
    names = dict(columns) if columns is not None else {name: name for name in table.columns}
    for role, name in names.items():
        if name not in table.columns:
            _refuse_columns(path, table, role, name, separator, parquet)
    table = table.select(pl.col(name).alias(role) for role, name in names.items())
    text = pl.col(pl.String, pl.Categorical).cast(pl.String).str.strip_chars()
    table = table.with_columns(text).with_columns(
        pl.when(~pl.col(pl.String).is_in(["", *missing])).then(pl.col(pl.String))
    )
    file = TableFile(path, table, names, first_row=1 if parquet else 2)
    if table.is_empty():
        raise InputFault(path, "holds no row", "give a file with rows")
    for role in required:
        file.refuse(file[role].is_null(), role, "is not allowed here", "fill the cell or remove the row")
    return file


def _read_csv(path: Path, separator: str) -> pl.DataFrame:
    try:
        table = pl.read_csv(path, separator=separator, infer_schema=False, encoding="utf8")
    except pl.exceptions.NoDataError:
        raise InputFault(path, "is empty", "give a file with a header and rows") from None
    except pl.exceptions.PolarsError as fault:
        if "utf-8" in str(fault).lower() or "utf8" in str(fault).lower():
            raise InputFault(path, "is no text in UTF-8", "save it as UTF-8") from None
        what = f"cannot be read as CSV ({first_line(fault)})"
        raise InputFault(path, what, 'put cells that hold a separator or a line end into "quotes"') from None
    if table[:, -1].null_count():
        _refuse_short_rows(path, separator, table.width)
    # Polars leaves the mark that Excel writes before the first name in some cases.
    return table.rename({name: name.removeprefix("\ufeff").strip() for name in table.columns})


def _refuse_short_rows(path: Path, separator: str, width: int) -> None:
    """A row with fewer cells than the header, as a cut-off export ends in: polars would fill it up."""
    short: list[csv.InvalidRow] = []

    def keep(row: csv.InvalidRow) -> str:
        short.append(row)
        return "skip"

    parsed = csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=keep)
    header_too = csv.ReadOptions(use_threads=False, autogenerate_column_names=True)
    as_text = csv.ConvertOptions(column_types={f"f{index}": pa.string() for index in range(width)})
    for _ in csv.open_csv(path, header_too, parsed, as_text):
        if short:
            break
    if short:
        row = short[0]
        raise InputFault(
            path,
            f"row {row.number} has {row.actual_columns} cells where the header has {row.expected_columns}",
            "export it again, with a separator for each empty cell",
        )


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as fault:
        raise InputFault(
            path, f"is not a readable parquet file ({first_line(fault)})", "write it again"
        ) from None


def _refuse_columns(
    path: Path, table: pl.DataFrame, role: str, name: str, separator: str, parquet: bool
) -> NoReturn:
    if not parquet and table.width == 1:
        header = table.columns[0]
        for other in SEPARATORS:
            if other != separator and name in [cell.strip().strip('"') for cell in header.split(other)]:
                what = f"is not separated by {separator!r} (its header is {header[:60]!r})"
                raise InputFault(path, what, f"give --separator {other!r}")
    known = ", ".join(table.columns[:12])
    raise InputFault(path, f"has no column {name!r} for the {role}", f"its columns: {known}; see --help")


def parse_columns(
    given: str, option: str, required: Sequence[str], optional: Sequence[str]
) -> dict[str, str]:
    """`subject=pid,time=at` as role -> column; a required role not named is a column of that name.

    Raises:
        InputFault: not of that form, a role that does not exist or is there twice.
    """
    columns: dict[str, str] = {}
    known = (*required, *optional)
    for part in filter(None, (part.strip() for part in given.split(","))):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise InputFault(option, f"{part!r} is not ROLE=COLUMN", f"roles: {', '.join(known)}")
        if role not in known:
            raise InputFault(option, f"{role!r} is no role", f"roles: {', '.join(known)}")
        if role in columns:
            raise InputFault(option, f"the {role} is given twice", "name one column for it")
        columns[role] = name
    return {role: role for role in required} | columns
