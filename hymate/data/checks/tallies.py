"""What is counted while the events pass by: per code, in memory that does not grow with the events."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

DIGITS = 3
"""Values are counted rounded to this many significant digits: quantiles are exact to these digits."""

_MERGE_ROWS = 1_000_000
"""Rows of unmerged counts that are kept before they are merged."""


class RunningTotal:
    """A group-by whose input comes in pieces."""

    def __init__(self, keys: Sequence[str], totals: Sequence[pl.Expr]) -> None:
        """`totals`: aggregations that give the same when applied to their own results (sum, min, max)."""
        self._keys = list(keys)
        self._totals = list(totals)
        self._parts: list[pl.DataFrame] = []
        self._waiting = 0

    def add(self, part: pl.DataFrame) -> None:
        """One piece's groups: the keys and one column per total."""
        self._parts.append(part)
        self._waiting += len(part)
        if len(self._parts) > 1 and self._waiting > max(_MERGE_ROWS, 2 * len(self._parts[0])):
            self.total()

    def total(self) -> pl.DataFrame | None:
        """One row per group over everything added so far; None when nothing was."""
        if not self._parts:
            return None
        merged = pl.concat(self._parts).group_by(self._keys).agg(self._totals)
        self._parts, self._waiting = [merged], 0
        return merged


class CodeTally:
    """Per code: events, numbers, subjects, stays that have it, smallest and largest value, quantiles."""

    def __init__(self, stays: pl.DataFrame) -> None:
        """`stays`: `subject_id`, `prediction_time`, one row per stay (of all tasks)."""
        self._stays = stays
        sums = [pl.col(name).sum() for name in ("events", "numbers", "subjects")]
        self._codes = RunningTotal(["code"], [*sums, pl.col("min").min(), pl.col("max").max()])
        self._present = RunningTotal(["code"], [pl.col("stays").sum()])
        self._values = RunningTotal(["code", "value"], [pl.col("count").sum()])

    def add(self, piece: pl.DataFrame) -> None:
        """Count one piece of whole subjects (columns of `event_files.read_pieces`)."""
        number = pl.col("numeric_value")
        number = pl.when(number.is_finite()).then(number)
        pairs = piece.group_by("subject_id", "code").agg(
            events=pl.len(),
            numbers=number.count(),
            min=number.min(),
            max=number.max(),
            # A row without a time is known from the start.
            since=pl.when(pl.col("time").null_count() == 0).then(pl.col("time").min()),
        )
        self._codes.add(
            pairs.group_by("code").agg(
                pl.col("events").cast(pl.Int64).sum(),
                pl.col("numbers").cast(pl.Int64).sum(),
                pl.len().cast(pl.Int64).alias("subjects"),
                pl.col("min").min(),
                pl.col("max").max(),
            )
        )
        known = (pl.col("since") <= pl.col("prediction_time")).fill_null(True)
        stays = pairs.select("subject_id", "code", "since").join(self._stays, on="subject_id").filter(known)
        self._present.add(stays.group_by("code").agg(stays=pl.len().cast(pl.Int64)))
        values = piece.select("code", value=number.round_sig_figs(DIGITS)).drop_nulls("value")
        self._values.add(values.group_by("code", "value").agg(count=pl.len().cast(pl.Int64)))

    def table(self) -> pl.DataFrame:
        """One row per code, the one with most subjects first.

        Returns:
            `code` String, `events`, `numbers` (events with a finite value), `subjects`, `stays` (of those
            given: how many have the code by their prediction time) Int64; `min`, `max`, `p1`, `median`,
            `p99` Float32, null without numbers.
        """
        codes, present, values = self._codes.total(), self._present.total(), self._values.total()
        if codes is None or present is None or values is None:
            return pl.DataFrame(schema=_TABLE)
        quantiles = quantiles_of(values)
        table = codes.join(present, on="code", how="left").join(quantiles, on="code", how="left")
        table = table.with_columns(pl.col("code").cast(pl.String), pl.col("stays").fill_null(0))
        return table.select(list(_TABLE)).sort("subjects", "events", "code", descending=[True, True, False])


_TABLE = {
    "code": pl.String,
    "events": pl.Int64,
    "numbers": pl.Int64,
    "subjects": pl.Int64,
    "stays": pl.Int64,
    **dict.fromkeys(("min", "max", "p1", "median", "p99"), pl.Float32),
}


def quantiles_of(values: pl.DataFrame) -> pl.DataFrame:
    """Quantiles (nearest rank) from counts: `code`, `value`, `count` -> `code`, `p1`, `median`, `p99`."""
    ordered = values.sort("code", "value")
    reached = pl.col("count").cum_sum()
    return ordered.group_by("code", maintain_order=True).agg(
        pl.col("value").filter(reached >= share * pl.col("count").sum()).first().alias(name)
        for name, share in (("p1", 0.01), ("median", 0.5), ("p99", 0.99))
    )
