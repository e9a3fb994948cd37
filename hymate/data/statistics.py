"""What a site may say of its codes: counts, means and squared deviations that merge exactly.

Sites never show a row. Each sends `SiteStatistics` of its training split; the merge of any partition
equals the statistics of the pooled rows (Chan, Golub & LeVeque 1979, "Updating formulae and a
pairwise algorithm for computing sample variances", Stanford STAN-CS-79-773).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hymate.errors import InputFault

if TYPE_CHECKING:
    import polars as pl

    from hymate.data.tasks import Windows


@dataclass(frozen=True)
class CodeStatistics:
    """One code in the training windows of one site, or of several merged.

    `unit` "" means undeclared. `count` is occurrences, `numeric` those with a finite number,
    `subjects` and `numeric_subjects` the distinct subjects behind each. `mean` and `m2` (the sum of
    squared deviations from the mean) are float64 over the numeric occurrences; 0.0 when there are none.
    """

    code: str
    unit: str
    count: int
    numeric: int
    subjects: int
    numeric_subjects: int
    mean: float
    m2: float

    def merged(self, other: CodeStatistics) -> CodeStatistics:
        """The statistics of both sides' rows together; their subjects must be distinct people.

        An undeclared unit takes the other's. Raises `InputFault` when both declare one and differ.
        """
        if self.code != other.code:
            raise ValueError(f"statistics of '{self.code}' and '{other.code}' do not merge")
        if self.unit and other.unit and self.unit != other.unit:
            raise InputFault(
                f"code '{self.code}'",
                f"is measured in '{self.unit}' and in '{other.unit}'",
                "convert to one unit at the sites",
            )
        numeric = self.numeric + other.numeric
        mean, m2 = 0.0, 0.0
        if numeric:
            delta = other.mean - self.mean
            mean = self.mean + delta * (other.numeric / numeric)
            m2 = self.m2 + other.m2 + delta * delta * (self.numeric * other.numeric / numeric)
        return CodeStatistics(
            code=self.code,
            unit=self.unit or other.unit,
            count=self.count + other.count,
            numeric=numeric,
            subjects=self.subjects + other.subjects,
            numeric_subjects=self.numeric_subjects + other.numeric_subjects,
            mean=mean,
            m2=m2,
        )

    def without_numbers(self) -> CodeStatistics:
        """The same code as if no occurrence had carried a number."""
        return replace(self, numeric=0, numeric_subjects=0, mean=0.0, m2=0.0)


@dataclass(frozen=True)
class SiteStatistics:
    """All codes of a site's training split, sorted; `dynamic` ones have a time, `static` ones none."""

    dynamic: tuple[CodeStatistics, ...]
    static: tuple[CodeStatistics, ...]
    stays: int
    subjects: int

    def to_json(self) -> str:
        """One line of JSON; floats by their shortest exact form, so `from_json` gives the same bits."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SiteStatistics:
        """The inverse of `to_json`."""
        content = json.loads(text)
        return cls(
            dynamic=tuple(CodeStatistics(**entry) for entry in content["dynamic"]),
            static=tuple(CodeStatistics(**entry) for entry in content["static"]),
            stays=content["stays"],
            subjects=content["subjects"],
        )

    def without_small_cells(self, min_cell: int) -> SiteStatistics:
        """What may leave the site when fewer than `min_cell` people must never stand behind a number.

        A code seen in fewer than `min_cell` subjects leaves out; so do mean and M2 of a code whose
        numbers come from fewer (a common code may carry a number for one person only).
        """

        def allowed(entries: Iterable[CodeStatistics]) -> tuple[CodeStatistics, ...]:
            return tuple(
                entry if entry.numeric_subjects >= min_cell else entry.without_numbers()
                for entry in entries
                if entry.subjects >= min_cell
            )

        return replace(self, dynamic=allowed(self.dynamic), static=allowed(self.static))


def code_statistics(windows: Windows, units: Mapping[str, str]) -> SiteStatistics:
    """Statistics of the TRAIN split: dynamic codes over the windows' triplets, static ones once a subject.

    Sums run in row order in one thread, so the same rows give the same bits on every run: the
    vocabulary's hash depends on them.
    """
    import polars as pl

    stays = windows.stays.filter(pl.col("split") == "train").select("stay", "subject_id")
    dynamic = windows.triplets.join(stays, on="stay", how="inner", maintain_order="left").select(
        "subject_id", "code", "value"
    )
    # One stay speaks for its subject, and the last row for its code: as the store's static vector does.
    first_stay = stays.unique("subject_id", keep="first", maintain_order=True)
    static = (
        windows.static.join(first_stay, on="stay", how="inner", maintain_order="left")
        .unique(["subject_id", "code"], keep="last", maintain_order=True)
        .select("subject_id", "code", pl.col("numeric_value").alias("value"))
    )
    return SiteStatistics(
        dynamic=_per_code(dynamic, units),
        static=_per_code(static, units),
        stays=len(stays),
        subjects=len(first_stay),
    )


def _per_code(rows: pl.DataFrame, units: Mapping[str, str]) -> tuple[CodeStatistics, ...]:
    """Statistics of `rows` (subject_id, code, value) for every code there, sorted by code."""
    import polars as pl

    codes = rows["code"].unique().sort()
    index = rows["code"].cast(pl.Enum(codes)).to_physical().to_numpy()
    value = rows["value"].fill_null(float("nan")).to_numpy()
    finite = np.isfinite(value)
    numeric_index, number = index[finite], value[finite].astype(np.float64)

    def total(weight: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(numeric_index, weight, minlength=len(codes))

    def people(which: pl.DataFrame) -> np.ndarray:
        distinct = which.unique()["code"].to_numpy()
        return np.bincount(distinct, minlength=len(codes))

    numeric = total()
    divisor = np.maximum(numeric, 1)
    mean = total(number) / divisor
    # Corrected two-pass algorithm: what rounding left in the mean is taken out of both.
    deviation = number - mean[numeric_index]
    residual = total(deviation)
    m2 = np.maximum(total(deviation * deviation) - residual * residual / divisor, 0.0)
    mean = mean + residual / divisor

    pairs = pl.DataFrame({"code": index, "subject_id": rows["subject_id"]})
    count, subjects = np.bincount(index, minlength=len(codes)), people(pairs)
    numeric_subjects = people(pairs.filter(finite))
    return tuple(
        CodeStatistics(
            code=code,
            unit=units.get(code) or "",
            count=int(count[i]),
            numeric=int(numeric[i]),
            subjects=int(subjects[i]),
            numeric_subjects=int(numeric_subjects[i]),
            mean=float(mean[i]),
            m2=float(m2[i]),
        )
        for i, code in enumerate(codes)
    )


def merge_statistics(sites: Sequence[SiteStatistics]) -> SiteStatistics:
    """All sites as one; no site at all gives empty statistics."""
    return SiteStatistics(
        dynamic=_merge(entry for site in sites for entry in site.dynamic),
        static=_merge(entry for site in sites for entry in site.static),
        stays=sum(site.stays for site in sites),
        subjects=sum(site.subjects for site in sites),
    )


def _merge(entries: Iterable[CodeStatistics]) -> tuple[CodeStatistics, ...]:
    merged: dict[str, CodeStatistics] = {}
    for entry in entries:
        merged[entry.code] = merged[entry.code].merged(entry) if entry.code in merged else entry
    return tuple(merged[code] for code in sorted(merged))
