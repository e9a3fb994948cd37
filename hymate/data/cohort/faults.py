"""What goes wrong between the patient and the data set: codes never measured, units, clocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from hymate.data.cohort.codes import ALWAYS_MEASURED, MEASUREMENTS, OTHER_UNITS
from hymate.data.cohort.config import SyntheticConfig
from hymate.data.cohort.streams import Stream, generator


@dataclass(frozen=True)
class Faults:
    """The faults of one hospital.

    `never_measured` codes; `in_other_unit` codes written in their other unit, `declared` or not;
    `clock_hours` added to every observation's time; `duplicated` share of rows written twice.
    """

    never_measured: tuple[str, ...]
    in_other_unit: tuple[str, ...]
    declared: bool
    clock_hours: float
    duplicated: float

    @property
    def declared_units(self) -> dict[str, str]:
        """Code -> unit that codes.parquet names instead of the usual one."""
        return {code: OTHER_UNITS[code].unit for code in self.in_other_unit} if self.declared else {}


def draw_faults(config: SyntheticConfig, k: int) -> Faults:
    """Hospital k's faults. A stronger switch adds faults to those a weaker one has."""
    coverage = generator(config.seed, k, Stream.COVERAGE).random(len(MEASUREMENTS))
    units = generator(config.seed, k, Stream.UNITS).random(len(OTHER_UNITS))
    codes = [m.code for m in MEASUREMENTS]
    return Faults(
        never_measured=tuple(
            code
            for code, drawn in zip(codes, coverage, strict=True)
            if drawn < config.coverage_gaps and code != ALWAYS_MEASURED
        ),
        in_other_unit=tuple(
            code for code, drawn in zip(OTHER_UNITS, units, strict=True) if drawn < config.unit_errors.share
        ),
        declared=config.unit_errors.declared,
        clock_hours=_clock_hours(config, k),
        duplicated=config.clocks.duplicated_rows,
    )


def _clock_hours(config: SyntheticConfig, k: int) -> float:
    clocks = config.clocks
    drawn, sign, size = generator(config.seed, k, Stream.CLOCK).random(3)
    if drawn >= clocks.shifted_share:
        return 0.0
    hours = 1 + int(size * int(clocks.shifted_hours)) if clocks.time_zone else clocks.shifted_hours
    return hours if sign < 0.5 else -hours


def apply_faults(faults: Faults, config: SyntheticConfig, k: int, rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` (columns `stay`, `second`, `code`, `numeric_value`) as this hospital writes them."""
    if faults.in_other_unit:
        rows = rows.with_columns(numeric_value=_in_written_unit(faults.in_other_unit))
    if faults.clock_hours:
        rows = rows.with_columns(second=pl.col("second") + round(faults.clock_hours * 3600))
    if faults.duplicated:
        # Drawn per row of the fault-free record, in its order: other faults then duplicate the same rows.
        drawn = generator(config.seed, k, Stream.DUPLICATES).random(len(rows))
        rows = pl.concat([rows, rows.filter(pl.Series(np.asarray(drawn < faults.duplicated)))])
    return rows


def _in_written_unit(codes: tuple[str, ...]) -> pl.Expr:
    value = pl.col("numeric_value")
    for code in codes:
        other = OTHER_UNITS[code]
        converted = (pl.col("numeric_value") * other.factor + other.plus).round(other.decimals)
        value = pl.when(pl.col("code") == code).then(converted).otherwise(value)
    return value
