"""What a site may say of its codes: counts, means and squared deviations that merge exactly; quantiles.

Sites never show a row. Each sends `SiteStatistics` of its training split; the merge of any partition
equals the statistics of the pooled rows (Chan, Golub & LeVeque 1979, "Updating formulae and a
pairwise algorithm for computing sample variances", Stanford STAN-CS-79-773).

Nothing of what is sent is about fewer than `min_cell` people:

- a code that fewer have stays at home; one whose numbers come from fewer is sent without numbers, and
  one that fewer have without a number is sent as if they never had;
- numbers of people are rounded down to multiples of `min_cell`, and of a static code only as many
  people are counted: a site's total less those with the code would otherwise name the rest;
- quantiles are bins of `min_cell` people (`hymate.data.quantiles`).

Occurrences, mean and M2 of a code with a time are exact: merging needs them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hymate.config import MappedCode
from hymate.data.quantiles import QuantileSketch, sketch_values
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
    `sketches` holds the quantiles of each site.
    """

    code: str
    unit: str
    count: int
    numeric: int
    subjects: int
    numeric_subjects: int
    mean: float
    m2: float
    sketches: tuple[QuantileSketch, ...] = ()

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
            sketches=self.sketches + other.sketches,
        )

    def converted(self, factor: float, offset: float, unit: str) -> CodeStatistics:
        """The statistics of value * factor + offset, which is in `unit`: exact."""
        return replace(
            self,
            unit=unit,
            mean=self.mean * factor + offset if self.numeric else 0.0,
            m2=self.m2 * factor * factor,
            sketches=tuple(sketch.converted(factor, offset) for sketch in self.sketches),
        )

    def without_numbers(self) -> CodeStatistics:
        """The same code as if no occurrence had carried a number."""
        return replace(self, numeric=0, numeric_subjects=0, mean=0.0, m2=0.0, sketches=())

    def without_numberless(self) -> CodeStatistics:
        """The same code as if only occurrences with a number had been."""
        return replace(self, count=self.numeric, subjects=self.numeric_subjects)


@dataclass(frozen=True)
class SiteStatistics:
    """All codes of a site's training split, sorted; `dynamic` ones have a time, `static` ones none.

    A code whose local names differ in unit stands once for each unit. `stays` and `subjects` are
    rounded down to multiples of the site's `min_cell`.
    """

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
            dynamic=tuple(_code_statistics(entry) for entry in content["dynamic"]),
            static=tuple(_code_statistics(entry) for entry in content["static"]),
            stays=content["stays"],
            subjects=content["subjects"],
        )


def _code_statistics(content: dict[str, Any]) -> CodeStatistics:
    sketches = tuple(
        QuantileSketch(tuple(sketch["edges"]), tuple(sketch["counts"])) for sketch in content["sketches"]
    )
    return CodeStatistics(**{**content, "sketches": sketches})


def code_statistics(
    windows: Windows,
    units: Mapping[str, str],
    min_cell: int = 1,
    *,
    mapping: Sequence[MappedCode] = (),
    site: str = "",
) -> SiteStatistics:
    """Statistics of the TRAIN split: dynamic codes over the windows' triplets, static ones once a subject.

    Sums run in row order in one thread, so the same rows give the same bits on every run: the
    vocabulary's hash depends on them.

    Args:
        units: of the site's local codes.
        min_cell: what is about fewer people is left out (see the module's text); 1: nothing.
        mapping: the study's; `site` picks the lines that are about this site alone.
    """
    import polars as pl

    dynamic, static, subjects = training_rows(windows, units, mapping, site)
    static = static.filter(pl.int_range(pl.len()).over("code") < pl.len().over("code") // min_cell * min_cell)
    stays = int((windows.stays["split"] == "train").sum())
    return SiteStatistics(
        dynamic=_per_code(dynamic, min_cell),
        static=_per_code(static, min_cell),
        stays=stays // min_cell * min_cell if subjects >= min_cell else 0,
        subjects=subjects // min_cell * min_cell,
    )


def training_rows(
    windows: Windows, units: Mapping[str, str], mapping: Sequence[MappedCode], site: str
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """What statistics are of: dynamic and static rows of the TRAIN split, and its number of people.

    Rows are (subject_id, code, value); a code is the study's, then `UNIT`, then the unit.
    """
    import polars as pl

    stays = windows.stays.filter(pl.col("split") == "train").select("stay", "subject_id")
    dynamic = windows.triplets.join(stays, on="stay", how="inner", maintain_order="left").select(
        "subject_id", "code", "value"
    )
    # One stay speaks for its subject, and the last row for its code: as the store's static vector does.
    first_stay = stays.unique("subject_id", keep="first", maintain_order=True)
    static = windows.static.join(first_stay, on="stay", how="inner", maintain_order="left").select(
        "subject_id", "code", pl.col("numeric_value").alias("value")
    )
    static = _by_shared_code(static, units, mapping, site).unique(
        ["subject_id", "code"], keep="last", maintain_order=True
    )
    return _by_shared_code(dynamic, units, mapping, site), static, len(first_stay)


UNIT = "\x1f"
"""Separates code and unit while both are one key."""


def _by_shared_code(
    rows: pl.DataFrame, units: Mapping[str, str], mapping: Sequence[MappedCode], site: str
) -> pl.DataFrame:
    """`rows` (subject_id, code, value) with the study's codes, each followed by its unit."""
    from hymate.data.mapping import in_shared_codes, shared_code

    lines: dict[str, list[MappedCode]] = {}
    for line in mapping:
        lines.setdefault(line.local, []).append(line)
    return in_shared_codes(
        rows,
        "value",
        lambda local: shared_code(local, units.get(local) or "", lines.get(local, ()), site),
        lambda shared: f"{shared.code}{UNIT}{shared.unit}",
    )


def _per_code(rows: pl.DataFrame, min_cell: int) -> tuple[CodeStatistics, ...]:
    """Statistics of `rows` (subject_id, code and unit, value) for every code there, sorted."""
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
    numeric_subjects, numberless_subjects = people(pairs.filter(finite)), people(pairs.filter(~finite))
    person = pairs["subject_id"].rank("dense").to_numpy().astype(np.int64)[finite] - 1
    sketches = _sketches(numeric_index, number, person, len(codes), min_cell)

    def entry(i: int) -> CodeStatistics | None:
        """What may be said of code i; None: nothing."""
        if subjects[i] < min_cell:
            return None
        code, _, unit = codes[i].partition(UNIT)
        sketch = sketches[i]
        told = CodeStatistics(
            code=code,
            unit=unit,
            count=int(count[i]),
            numeric=int(numeric[i]),
            subjects=int(subjects[i]) // min_cell * min_cell,
            numeric_subjects=int(numeric_subjects[i]) // min_cell * min_cell,
            mean=float(mean[i]),
            m2=float(m2[i]),
            sketches=() if sketch is None else (sketch,),
        )
        if numeric_subjects[i] < min_cell:
            return told.without_numbers()
        return told.without_numberless() if 0 < numberless_subjects[i] < min_cell else told

    return tuple(told for i in range(len(codes)) if (told := entry(i)) is not None)


def _sketches(
    code: np.ndarray, value: np.ndarray, person: np.ndarray, codes: int, min_cell: int
) -> list[QuantileSketch | None]:
    order = np.argsort(code, kind="stable")
    ends = np.cumsum(np.bincount(code, minlength=codes))
    value, person = value[order], person[order]
    return [
        sketch_values(value[begin:end], person[begin:end], min_cell) if end > begin else None
        for begin, end in zip([0, *ends[:-1]], ends, strict=False)
    ]


def merge_statistics(sites: Sequence[SiteStatistics]) -> SiteStatistics:
    """All sites as one; no site at all gives empty statistics."""
    return SiteStatistics(
        dynamic=merge_entries(entry for site in sites for entry in site.dynamic),
        static=merge_entries(entry for site in sites for entry in site.static),
        stays=sum(site.stays for site in sites),
        subjects=sum(site.subjects for site in sites),
    )


def merge_entries(entries: Iterable[CodeStatistics]) -> tuple[CodeStatistics, ...]:
    """One entry a code, sorted by code."""
    merged: dict[str, CodeStatistics] = {}
    for entry in entries:
        merged[entry.code] = merged[entry.code].merged(entry) if entry.code in merged else entry
    return tuple(merged[code] for code in sorted(merged))
