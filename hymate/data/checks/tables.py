"""Rules on metadata/: the codes' descriptions and the split of the subjects."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
from meds.schema import (
    CodeMetadataSchema,
    SubjectSplitSchema,
    code_metadata_filepath,
    data_subdirectory,
    subject_splits_filepath,
)

from hymate.data.checks import rules
from hymate.data.checks.event_files import ParquetFile, examples
from hymate.data.checks.findings import SHOWN, Example, Findings
from hymate.data.checks.schema import check_columns
from hymate.data.meds_files import REWRITE, SPLITS, first_line
from hymate.errors import InputFault


def read_columns(file: ParquetFile, names: list[str]) -> pl.DataFrame:
    """Those of the columns `names` that the file has, and `row` Int64; strings as String.

    Raises:
        InputFault: cannot be read.
    """
    present = [name for name in names if name in file.schema.names]
    try:
        table = pl.read_parquet(file.path, columns=present, hive_partitioning=False)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as fault:
        raise InputFault(file.path, f"cannot be read ({first_line(fault)})", REWRITE) from None
    text = [pl.col(name).cast(pl.String) for name, kind in table.schema.items() if kind == pl.Categorical]
    return table.with_columns(*text).select(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"), *present)


def check_nulls(
    file: ParquetFile, table: pl.DataFrame, names: tuple[str, ...], findings: Findings
) -> pl.DataFrame:
    """Report rows of `table` in which a column of `names` is null; returns the rows without."""
    for name in names:
        found = table.filter(pl.col(name).is_null())
        findings.add(rules.NULL, file.name, count=len(found), examples=examples(file, found), column=name)
    return table.drop_nulls(names)


def check_codes(root: Path, found: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    """Check metadata/codes.parquet against the codes of the events.

    Args:
        found: `code` String and `events`, one row per code of the data.

    Returns:
        `code`, `unit` (null where none is declared), one row per described code.
    """
    nothing = pl.DataFrame(schema={"code": pl.String, "unit": pl.String})
    path = root / code_metadata_filepath
    if not path.is_file():
        findings.add(rules.CODES_MISSING, code_metadata_filepath)
        return nothing
    file = ParquetFile.open(path, root)
    if not check_columns(file, CodeMetadataSchema, findings, ("code",)):
        return nothing
    if not file.rows:
        findings.add(rules.CODES_EMPTY, file.name)
        return nothing
    table = read_columns(file, ["code", "unit"])
    if table.schema.get("unit") != pl.String:
        table = table.with_columns(unit=pl.lit(None, pl.String))
    table = check_nulls(file, table, ("code",), findings)
    _check_copies(file, table, findings)
    unlisted = found.join(table, on="code", how="anti").sort("events", "code", descending=[True, False])
    shown = [
        Example(value=f"{code} ({count:,} events)")
        for code, count in unlisted.select("code", "events").head(SHOWN).iter_rows()
    ]
    findings.add(rules.CODE_UNLISTED, file.name, count=len(unlisted), examples=shown)
    return table.unique("code", keep="first").select("code", "unit")


def _check_copies(file: ParquetFile, table: pl.DataFrame, findings: Findings) -> None:
    """Codes described more than once: with the same unit a nuisance, with two a contradiction."""
    twice = table.filter(pl.col("code").is_duplicated()).group_by("code", maintain_order=True)
    copies = twice.agg(pl.col("row").min(), pl.col("unit").unique())
    differ = pl.col("unit").list.len() > 1
    units = pl.col("unit").list.eval(pl.element().fill_null("none").sort()).list.join(", ")
    for rule, found in (
        (rules.CODE_REPEATED, copies.filter(~differ).with_columns(value="code")),
        (
            rules.CODE_UNITS_DIFFER,
            copies.filter(differ).with_columns(value=pl.format("{}: {}", "code", units)),
        ),
    ):
        findings.add(rule, file.name, count=len(found), examples=examples(file, found))


def check_splits(root: Path, subjects: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    """Check metadata/subject_splits.parquet against the subjects of the events.

    Args:
        subjects: `subject_id` and `file` (name of the file its events are in), one row per subject.

    Returns:
        `subject_id`, `split`: one row per listed subject with a split that MEDS names.
    """
    nothing = pl.DataFrame(schema={"subject_id": pl.Int64, "split": pl.String})
    path = root / subject_splits_filepath
    if not path.is_file():
        findings.add(rules.SPLITS_MISSING, subject_splits_filepath)
        return nothing
    file = ParquetFile.open(path, root)
    if not check_columns(file, SubjectSplitSchema, findings, ("subject_id", "split")):
        return nothing
    table = check_nulls(file, read_columns(file, ["subject_id", "split"]), ("subject_id", "split"), findings)
    unknown = table.filter(~pl.col("split").is_in(SPLITS)).with_columns(value="split")
    findings.add(rules.SPLIT_UNKNOWN, file.name, count=len(unknown), examples=examples(file, unknown))
    listed = table.group_by("subject_id", maintain_order=True).agg(
        pl.col("row").min(), names=pl.col("split"), split=pl.col("split").first(), times=pl.len()
    )
    twice = listed.filter(pl.col("times") > 1).with_columns(value=pl.col("names").list.join(", "))
    findings.add(rules.SUBJECT_IN_TWO_SPLITS, file.name, count=len(twice), examples=examples(file, twice))
    outside = subjects.join(listed, on="subject_id", how="anti").sort("subject_id")
    shown = [Example(subject=subject) for subject in outside["subject_id"].head(SHOWN)]
    findings.add(rules.SUBJECT_WITHOUT_SPLIT, file.name, count=len(outside), examples=shown)
    _check_folders(subjects.join(listed, on="subject_id"), findings)
    return listed.filter(pl.col("split").is_in(SPLITS)).select("subject_id", "split")


def _check_folders(subjects: pl.DataFrame, findings: Findings) -> None:
    """Many tools shard data/ by split; then folder and list must agree."""
    for split in SPLITS:
        folder = f"{data_subdirectory}/{split}/"
        elsewhere = pl.col("split").is_in(SPLITS) & (pl.col("split") != split)
        wrong = subjects.filter(pl.col("file").str.starts_with(folder) & elsewhere)
        for name, members in wrong.sort("file", "subject_id").group_by("file", maintain_order=True):
            shown = [
                Example(subject=subject, value=f"listed as {listed}")
                for subject, listed in members.select("subject_id", "split").head(SHOWN).iter_rows()
            ]
            findings.add(rules.SPLIT_FOLDER, str(name[0]), count=len(members), examples=shown, folder=split)
