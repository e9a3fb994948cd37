"""Cells become codes and numbers: what is measured as text is a category, a code of its own."""

from __future__ import annotations

import polars as pl

from hymate.data.tabular.reading import TableFile

LONGEST_CATEGORY = 100
_DECIMAL_COMMA = r"^[+-]?\d+,\d+$"


def to_numbers(file: TableFile, role: str) -> pl.Series:
    """Column `role` as Float32; null where the cell is empty or holds text.

    Raises:
        InputFault: a number that is infinite, none (NaN), or too large for 32 bits.
    """
    raw = file[role]
    if raw.dtype == pl.Boolean:
        raw = raw.cast(pl.Int8)
    number = raw.cast(pl.Float64, strict=False)
    single = number.cast(pl.Float32)
    remedy = "leave the cell empty, or name the word with --missing"
    file.refuse(~single.is_finite(), role, "is no finite number", remedy)
    return single


def code_and_value(file: TableFile, code: str, value: str) -> tuple[pl.Series, pl.Series]:
    """What MEDS calls `code` and `numeric_value`, from the columns of these roles.

    A code whose values are text becomes `CODE//VALUE` without a number; a cell without a value leaves the
    code as it is.

    Raises:
        InputFault: a code with numbers in one row and text in another, a decimal comma, or free text.
    """
    number = to_numbers(file, value)
    text = file[value].is_not_null() & number.is_null()
    if not text.any():
        return file[code].cast(pl.String), number
    words = file[value].cast(pl.String)
    comma = text & words.str.contains(_DECIMAL_COMMA)
    file.refuse(comma, value, "has a decimal comma", "write the number with a point")
    long = text & (words.str.len_chars() > LONGEST_CATEGORY)
    file.refuse(long, value, "is free text, no category", f"at most {LONGEST_CATEGORY} letters")
    rows = pl.DataFrame({"code": file[code].cast(pl.String), "text": text, "number": number.is_not_null()})
    mixed = rows.select(pl.col("text") & pl.col("number").any().over("code")).to_series()
    if mixed.any():
        name = rows["code"][mixed.arg_max() or 0]
        remedy = "write a number, leave the cell empty, or name the word with --missing"
        file.refuse(mixed, value, f"is text, where code {name!r} has numbers in other rows", remedy)
    joined = rows.select(
        pl.when("text").then(pl.concat_str("code", pl.lit("//"), words)).otherwise("code")
    ).to_series()
    return joined, number


def to_labels(file: TableFile, role: str) -> pl.Series:
    """Column `role` as Boolean when all it holds is yes or no, otherwise as Float32.

    Yes and no may be written 1 and 0, true and false, yes and no, in any case. Empty cells are null.

    Raises:
        InputFault: a cell that is neither.
    """
    raw = file[role]
    if raw.dtype == pl.Boolean:
        return raw
    words = raw.cast(pl.String).str.to_lowercase()
    truth = {"1": True, "1.0": True, "true": True, "yes": True}
    truth |= {"0": False, "0.0": False, "false": False, "no": False}
    yes_or_no = words.replace_strict(truth, default=None, return_dtype=pl.Boolean)
    if (yes_or_no.is_not_null() | raw.is_null()).all():
        return yes_or_no
    number = to_numbers(file, role)
    wrong = raw.is_not_null() & number.is_null()
    file.refuse(wrong, role, "is neither yes or no (1 or 0) nor a number", "write one of them")
    return number


def units_of(file: TableFile, code: str, unit: str, codes: pl.Series) -> dict[str, str]:
    """Code -> unit, from a column of units; `codes` are the rows' codes as written out.

    Raises:
        InputFault: a code with two units.
    """
    rows = pl.DataFrame(
        {"code": codes, "raw": file[code].cast(pl.String), "unit": file[unit].cast(pl.String)}
    )
    rows = rows.with_row_index("row").drop_nulls("unit")
    firsts = rows.unique(["raw", "unit"], keep="first", maintain_order=True)
    other = firsts.filter(~pl.col("raw").is_first_distinct())
    if len(other):
        row, _, raw, _ = other.row(0)
        first = firsts.filter(pl.col("raw") == raw).row(0, named=True)
        what = f"is another unit of code {raw!r} than {first['unit']!r} in row {file.row(first['row'])}"
        file.fault(row, unit, what, "convert the values to one unit")
    return dict(rows.unique(["code"], keep="first").select("code", "unit").iter_rows())
