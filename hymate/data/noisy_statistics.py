"""Statistics of codes and counts of stays with noise: Gaussian mechanisms whose unit is the person.

What a site would say exactly (`hymate.data.statistics`) it says here of a list of codes that is agreed
before anybody has looked at data, with ranges that are, too. Neighbours differ by one person, who adds to a
code's sums once, however often it was observed of them:

    z       a value, clipped to its code's range [low, high] and moved to [-1, 1]
    sums    (1, mean z, mean z^2) of each code the person has, (1, 0, 0) without a range; 1 for being there

over V codes: norm sqrt(3 V + 1) at most. Of stays each person counts once in their split, and once more where
one of their stays has the label: norm sqrt(2). To each sum normal noise of the multiplier times the norm is
added; everything else is made of the noisy sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hymate.config import MappedCode, RangeConfig
from hymate.data.statistics import UNIT, CodeStatistics, SiteStatistics, training_rows

if TYPE_CHECKING:
    import polars as pl

    from hymate.data.tasks import Windows

Floats = NDArray[np.float64]
Draw = Callable[[int], Floats]
"""So many standard normal numbers."""

TELLING = 3.0
"""Deviations of the noise below which a number of people is taken for none."""
LEAST_SPREAD = 0.01
"""Standard deviation, over half the range, below which noise would decide it."""


def noisy_statistics(
    windows: Windows,
    units: Mapping[str, str],
    codes: Mapping[str, RangeConfig],
    multiplier: float,
    draw: Draw,
    *,
    mapping: Sequence[MappedCode] = (),
    site: str = "",
) -> SiteStatistics:
    """What `code_statistics` says, with noise and of `codes` alone; occurrences are numbers of people.

    A code has both ends of its range, in the unit of the site's values after the mapping, or neither.
    """
    dynamic, static, subjects = training_rows(windows, units, mapping, site)
    names = sorted(codes)
    timed = sums_by_person(dynamic, codes, names)
    timeless = sums_by_person(static.join(dynamic, on=["subject_id", "code"], how="anti"), codes, names)
    deviation = multiplier * math.sqrt(3 * len(names) + 1)
    people = max(0, round(subjects + deviation * float(draw(1)[0])))
    groups = []
    for sums, rows in ((timed, dynamic), (timeless, static)):
        noisy = sums + deviation * draw(sums.size).reshape(sums.shape)
        unit_of = dict(sorted((key.split(UNIT) for key in rows["code"].unique()), reverse=True))
        entries = (
            _entry(code, unit_of.get(code, ""), codes[code], noisy[i], deviation)
            for i, code in enumerate(names)
        )
        groups.append(tuple(entry for entry in entries if entry is not None))
    return SiteStatistics(dynamic=groups[0], static=groups[1], stays=people, subjects=people)


def noisy_counts(windows: Windows, multiplier: float, draw: Draw) -> dict[str, tuple[int, int]]:
    """Split -> numbers of people with a stay, and with one that has the label."""
    import polars as pl

    from hymate.data.meds import SPLITS

    people = windows.stays.group_by("split", "subject_id").agg(
        (pl.col("label") > 0.5).any().alias("positive")
    )
    deviation = multiplier * math.sqrt(2)
    found = {}
    for name in SPLITS:
        positive = people.filter(pl.col("split") == name)["positive"]
        exact = np.array([len(positive), positive.sum()])
        stays, positives = np.maximum(0, np.rint(exact + deviation * draw(2))).astype(int)
        found[name] = (int(stays), int(min(positives, stays)))
    return found


def sums_by_person(rows: pl.DataFrame, codes: Mapping[str, RangeConfig], names: Sequence[str]) -> Floats:
    """(V, 3): the sums over people of `rows` (subject_id, code with its unit, value)."""
    import polars as pl

    plain = rows.with_columns(pl.col("code").str.split(UNIT).list.first())
    plain = plain.filter(pl.col("code").is_in(list(names)))
    low = np.array([-1.0 if codes[name].low is None else codes[name].low for name in names])
    high = np.array([1.0 if codes[name].high is None else codes[name].high for name in names])
    code = plain["code"].cast(pl.Enum(list(names))).to_physical().to_numpy()
    value = plain["value"].fill_null(float("nan")).to_numpy().astype(np.float64)
    z = np.clip((value - (high + low)[code] / 2) / ((high - low)[code] / 2), -1.0, 1.0)
    ranged = np.array([codes[name].low is not None for name in names])[code]
    z = np.where(ranged & np.isfinite(z), z, 0.0)
    each = (
        pl.DataFrame({"code": code, "person": plain["subject_id"], "z": z, "square": z * z})
        .group_by("code", "person", maintain_order=True)
        .agg(pl.col("z").mean(), pl.col("square").mean())
    )
    index = each["code"].to_numpy()
    parts = (np.ones(len(each)), each["z"].to_numpy(), each["square"].to_numpy())
    return np.stack([np.bincount(index, part, minlength=len(names)) for part in parts], axis=1)


def _entry(
    code: str, unit: str, bounds: RangeConfig, sums: Floats, deviation: float
) -> CodeStatistics | None:
    """The code as its noisy sums have it; None where they may well be noise alone."""
    people = round(float(sums[0]))
    if people < max(1.0, TELLING * deviation):
        return None
    if bounds.low is None or bounds.high is None:
        return CodeStatistics(code, unit, people, 0, people, 0, 0.0, 0.0)
    half, middle = (bounds.high - bounds.low) / 2, (bounds.high + bounds.low) / 2
    z = float(np.clip(sums[1] / people, -1.0, 1.0))
    spread = max(LEAST_SPREAD**2, min(1.0, float(sums[2]) / people - z * z))
    return CodeStatistics(
        code, unit, people, people, people, people, middle + half * z, half * half * spread * people
    )
