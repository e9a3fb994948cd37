"""Times of a hospital's files become MEDS times: microseconds, without a zone.

Timestamps without a zone are taken as written, so that a night of 25 hours has 24: a clock's own view, as
in MIMIC. Timestamps with an offset (`+01:00`, `Z`) become UTC, and the night has 25. The two never mix.
Numbers (`--time-unit`) count from an origin of each subject's own; every origin is put at `ORIGIN`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import polars as pl

from hymate.data.meds_files import first_line
from hymate.data.tabular.reading import TableFile
from hymate.errors import InputFault

TimeUnit = Literal["minutes", "hours", "days"]

ORIGIN = dt.datetime(2000, 1, 1)
MICROSECONDS: dict[TimeUnit, int] = {"minutes": 60_000_000, "hours": 3_600_000_000, "days": 86_400_000_000}

_LONGEST = 200 * 365 * MICROSECONDS["days"]
_ZONE = r"(?:[zZ]|[+-]\d\d:?\d\d)$"
_ISO = "YYYY-MM-DD, YYYY-MM-DD HH:MM or YYYY-MM-DD HH:MM:SS"


@dataclass
class Clock:
    """How the times of all files are to be read; remembers whether they carry a zone."""

    unit: TimeUnit | None = None
    format: str | None = None
    _zoned: bool | None = None
    _seen_in: str = ""

    def read(self, file: TableFile, role: str) -> pl.Series:
        """Column `role` of `file` as Datetime("us"); null where the cell is empty.

        Raises:
            InputFault: a cell that is no such time, or zones in one place and none in another.
        """
        raw = file[role]
        if self.unit is not None:
            return self._from_numbers(file, role, self.unit)
        if raw.dtype.is_numeric():
            file.fault(0, role, "is a number", "say what it counts: --time-unit minutes, hours or days")
        if isinstance(raw.dtype, pl.Datetime):
            self._agree(raw.is_not_null() & (raw.dtype.time_zone is not None), raw, file, role)
            naive = raw.dt.convert_time_zone("UTC") if raw.dtype.time_zone else raw
            return naive.dt.replace_time_zone(None).cast(pl.Datetime("us"))
        if raw.dtype == pl.Date:
            self._agree(raw.is_null(), raw, file, role)  # a day has no zone
            return raw.cast(pl.Datetime("us"))
        return self._from_text(file, role)

    def _from_numbers(self, file: TableFile, role: str, unit: TimeUnit) -> pl.Series:
        raw = file[role]
        number = raw.cast(pl.Float64, strict=False)
        micro = number * MICROSECONDS[unit]
        wrong = raw.is_not_null() & ~(number.is_finite() & (micro.abs() <= _LONGEST)).fill_null(False)
        file.refuse(wrong, role, f"is no number of {unit}", "correct it, or leave --time-unit out")
        origin = pl.Series([ORIGIN], dtype=pl.Datetime("us"))
        since_1970: int = origin.to_physical()[0]
        return (micro.round().cast(pl.Int64) + since_1970).cast(pl.Datetime("us"))

    def _from_text(self, file: TableFile, role: str) -> pl.Series:
        raw = file[role].cast(pl.String)
        if self.format is not None:
            try:
                time = raw.str.to_datetime(self.format, time_unit="us", strict=False)
            except pl.exceptions.PolarsError as fault:
                what = f"{self.format!r} is no format of times ({first_line(fault).split('. ')[0]})"
                raise InputFault("--time-format", what, "write it as in strftime") from None
            zoned = isinstance(time.dtype, pl.Datetime) and time.dtype.time_zone is not None
            wrong = raw.is_not_null() & time.is_null()
            file.refuse(wrong, role, f"is not written as {self.format}", "correct it, or --time-format")
            self._agree(raw.is_not_null() & zoned, raw, file, role)
            return time.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else time
        zone = raw.str.extract(f":\\d\\d(?:\\.\\d+)?({_ZONE})")
        bare = pl.when(zone.is_null()).then(raw).otherwise(raw.str.replace(_ZONE, ""))
        plain = pl.select(bare).to_series().str.replace("T", " ", literal=True).str.strip_chars()
        time = pl.select(
            pl.coalesce(
                plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False),
                plain.str.to_datetime("%Y-%m-%d %H:%M", time_unit="us", strict=False),
                plain.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")),
            )
        ).to_series()
        remedy = f"write {_ISO}, or say how with --time-format, or --time-unit for numbers"
        file.refuse(raw.is_not_null() & time.is_null(), role, "is no time", remedy)
        self._agree(zone.is_not_null(), raw, file, role)
        return time - _offset(zone)

    def _agree(self, zoned: pl.Series, raw: pl.Series, file: TableFile, role: str) -> None:
        """Refuse the first time that carries a zone where an earlier one did not, or the reverse."""
        there = raw.is_not_null()
        if not there.any():
            return
        if self._zoned is None:
            first = there.arg_max() or 0
            self._zoned = bool(zoned[first])
            self._seen_in = f"row {file.row(first)} of {file.path.name}"
        wrong = there & (zoned != self._zoned)
        what = f"has {'no ' if self._zoned else 'a '}zone, unlike {self._seen_in}"
        file.refuse(wrong, role, what, "give every time with its offset, or none")


def _offset(zone: pl.Series) -> pl.Series:
    """ "+01:30" as a duration; null and "Z" as none."""
    digits = zone.str.replace(":", "", literal=True)
    hours = digits.str.slice(1, 2).cast(pl.Int64, strict=False).fill_null(0)
    minutes = digits.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    sign = zone.str.starts_with("-").fill_null(False).cast(pl.Int64) * -2 + 1
    return (sign * (hours * 60 + minutes) * MICROSECONDS["minutes"]).cast(pl.Duration("us"))
