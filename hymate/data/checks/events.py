"""Rules on single events and on the order of a file's rows, one piece of the file at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl
from meds.schema import birth_code, death_code

from hymate.data.checks import rules
from hymate.data.checks.event_files import ParquetFile, examples
from hymate.data.checks.findings import Findings
from hymate.data.checks.rules import Rule

_TIME = "%Y-%m-%d %H:%M:%S"


def shown_time(column: str) -> pl.Expr:
    """A time as text, "no time" for null."""
    return pl.col(column).dt.to_string(_TIME).fill_null("no time")


def sentinel(name: str) -> pl.Expr:
    """Whether an event's code is MEDS' sentinel `name`, or one below it (`MEDS_BIRTH//...`)."""
    return (pl.col("code") == name) | pl.col("code").cat.starts_with(f"{name}//")


def report(
    findings: Findings, rule: Rule, file: ParquetFile, found: pl.DataFrame, value: pl.Expr | None = None
) -> None:
    """Add the rows `found` (of one piece) to the findings, with `value` as the offending value."""
    shown = found if value is None else found.with_columns(value.alias("value"))
    findings.add(rule, file.name, count=len(found), examples=examples(file, shown))


def check_nulls(piece: pl.DataFrame, file: ParquetFile, findings: Findings) -> pl.DataFrame:
    """Report rows without subject or code; returns the piece without them."""
    for name in ("subject_id", "code"):
        if piece[name].null_count():
            found = piece.filter(pl.col(name).is_null())
            findings.add(rules.NULL, file.name, count=len(found), examples=examples(file, found), column=name)
            piece = piece.drop_nulls(name)
    return piece


def check_finite(piece: pl.DataFrame, file: ParquetFile, findings: Findings) -> None:
    """NaN and infinities; null is fine."""
    found = piece.filter(~pl.col("numeric_value").is_finite())
    value = pl.format("{} = {}", pl.col("code").cast(pl.String), "numeric_value")
    report(findings, rules.NON_FINITE, file, found, value)


def check_duplicates(piece: pl.DataFrame, file: ParquetFile, findings: Findings) -> None:
    """Rows equal to an earlier one in every column."""
    content = [name for name in piece.columns if name != "row"]
    # The hash finds candidates quickly; only they are compared.
    hashes = piece.select(pl.struct(content).hash()).to_series()
    candidates = piece.filter(hashes.is_duplicated())
    if len(candidates):
        found = candidates.filter(~pl.struct(content).is_first_distinct())
        value = pl.format("{} at {}", pl.col("code").cast(pl.String), shown_time("time"))
        report(findings, rules.DUPLICATE_ROW, file, found, value)


def check_order(piece: pl.DataFrame, file: ParquetFile, findings: Findings) -> None:
    """Static rows first, then by time, inside each run of one subject's rows."""
    before = pl.col("time").shift(1)
    backwards = (pl.col("time") < before).fill_null(False) | (pl.col("time").is_null() & before.is_not_null())
    same_subject = pl.col("subject_id") == pl.col("subject_id").shift(1)
    found = piece.with_columns(before=before).filter(backwards & same_subject)
    value = pl.format("{} after {}", shown_time("time"), shown_time("before"))
    report(findings, rules.TIME_ORDER, file, found, value)


def subjects_of(piece: pl.DataFrame) -> pl.DataFrame:
    """One row per subject of the piece.

    Returns:
        `subject_id`, `row` (its first), `first`, `last` (of the rows with a time, birth
        left out), `birth` (earliest MEDS_BIRTH), `death` (latest MEDS_DEATH).
    """
    born, died, time = sentinel(birth_code), sentinel(death_code), pl.col("time")
    return piece.group_by("subject_id", maintain_order=True).agg(
        pl.col("row").min(),
        first=time.filter(~born).min(),
        last=time.filter(~born).max(),
        birth=time.filter(born).min(),
        death=time.filter(died).max(),
    )


SUBJECT_TOTALS = (
    pl.col("row").min(),
    pl.col("first").min(),
    pl.col("last").max(),
    pl.col("birth").min(),
    pl.col("death").max(),
)
"""How rows of `subjects_of` for one subject become one."""


@dataclass
class Contiguity:
    """Which subjects one file has shown so far; finds those that come back."""

    file: ParquetFile
    _seen: list[pl.Series] = field(default_factory=list)

    def check(self, piece: pl.DataFrame, findings: Findings) -> None:
        """Report the runs whose subject had a run before, in this piece or an earlier one."""
        subject = pl.col("subject_id")
        runs = piece.select("row", "subject_id").filter(subject.ne_missing(subject.shift(1)))
        again = ~runs["subject_id"].is_first_distinct()
        for seen in self._seen:
            again |= runs["subject_id"].is_in(seen.implode())
        report(findings, rules.SUBJECT_SCATTERED, self.file, runs.filter(again))
        self._seen.append(runs["subject_id"].unique())
        if again.any():
            # Disordered files would otherwise keep every subject once per piece.
            self._seen = [pl.concat(self._seen).unique()]


def check_lifetime(
    piece: pl.DataFrame, subjects: pl.DataFrame, file: ParquetFile, findings: Findings
) -> None:
    """Events before the subject's birth or after its death; `subjects` as `subjects_of` gives them.

    A death at midnight is a date: it lasts until the end of that day.
    """
    bounded = subjects.filter(pl.col("birth").is_not_null() | pl.col("death").is_not_null())
    if bounded.is_empty():
        return
    whole_day = pl.col("death") == pl.col("death").dt.truncate("1d")
    bounded = bounded.select(
        "subject_id",
        "birth",
        "death",
        until=pl.when(whole_day)
        .then(pl.col("death") + pl.duration(days=1, microseconds=-1))
        .otherwise("death"),
    )
    early, late = pl.col("time") < pl.col("birth"), pl.col("time") > pl.col("until")
    rows = piece.join(bounded, on="subject_id", how="inner", maintain_order="left").filter(early | late)
    for rule, condition, limit in (
        (rules.BEFORE_BIRTH, early, "birth"),
        (rules.AFTER_DEATH, late, "death"),
    ):
        code = pl.col("code").cast(pl.String)
        value = pl.format(f"{{}} at {{}}, {limit} at {{}}", code, shown_time("time"), shown_time(limit))
        report(findings, rule, file, rows.filter(condition), value)
