"""Rules on the hospital's clock: the future, dates that stand for 'unknown', clocks that were shifted."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl
from meds.schema import birth_code, data_subdirectory

from hymate.data.checks import rules
from hymate.data.checks.event_files import ParquetFile
from hymate.data.checks.events import report, sentinel, shown_time
from hymate.data.checks.findings import Example, Findings

TOLERANCE = dt.timedelta(days=1)
"""An event is in the future when it is later than now by more: clocks differ, time zones do too."""

PLACEHOLDERS = (dt.date(1900, 1, 1), dt.date(1970, 1, 1))
"""What databases and file formats write when a date is not known."""

OLDEST = dt.datetime(1970, 1, 1)
"""Most events of an electronic record are later; if not, the clock was shifted."""

LEAST_EVENTS = 10
"""Fewer events with a time say nothing about the clock."""

_DAY = 86_400_000_000


@dataclass
class Clock:
    """Counts over all pieces what only the whole data set can tell."""

    now: dt.datetime
    timed: int = 0
    future: int = 0
    old: int = 0
    midnight: int = 0

    def check(self, piece: pl.DataFrame, file: ParquetFile, findings: Findings) -> None:
        """Report single events; births are left to `before-birth`: they may well be at midnight in 1900."""
        timed = piece.filter(pl.col("time").is_not_null() & ~sentinel(birth_code))
        time = timed["time"]
        if time.is_empty():
            return
        future = time > self.now + TOLERANCE
        self.timed += len(time)
        self.future += int(future.sum())
        self.old += int((time < OLDEST).sum())
        self.midnight += int((time.to_physical() % _DAY == 0).sum())
        value = pl.format("{} at {}", pl.col("code").cast(pl.String), shown_time("time"))
        report(findings, rules.FUTURE, file, timed.filter(future), value)
        for day in PLACEHOLDERS:
            count = int((time.dt.date() == day).sum())
            findings.add(rules.CLOCK_PLACEHOLDER, file.name, count=count, day=day)

    def finish(self, findings: Findings) -> None:
        """Judge the clock as a whole: one sentence in place of a finding per event."""
        if self.timed < LEAST_EVENTS:
            return
        for count, when in ((self.future, "in the future"), (self.old, f"before {OLDEST.year}")):
            if 2 * count > self.timed:
                share = [Example(value=f"{100 * count / self.timed:.0f} % of the events")]
                findings.add(rules.CLOCK_SHIFTED, data_subdirectory, count=count, examples=share, when=when)
        if 2 * self.future > self.timed:
            findings.drop(rules.FUTURE)
        if self.midnight == self.timed:
            findings.add(rules.CLOCK_MIDNIGHT, data_subdirectory, count=self.timed)
