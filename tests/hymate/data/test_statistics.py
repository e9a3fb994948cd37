"""Statistics of codes: right by hand, mergeable over any partition, and silent on small cells."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.data.statistics import CodeStatistics, SiteStatistics, code_statistics, merge_statistics
from hymate.data.tasks import Windows
from hymate.errors import InputFault
from tests.hymate.data.small import NAN, random_stays, windows


def entry(code: str = "HR", **changes: object) -> CodeStatistics:
    base = CodeStatistics(code, "bpm", count=4, numeric=4, subjects=3, numeric_subjects=3, mean=5.0, m2=2.0)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_statistics_by_hand() -> None:
    made = windows(
        [
            [(0, "HR", 60), (1, "HR", 90), (1, "pH", 7.5)],
            [(0, "HR", 75), (2, "HR", NAN), (2, "ventilated", NAN)],
            [(0, "HR", 1000), (0, "held", 1)],
            [(0, "HR", 1000)],
        ],
        subjects=[1, 1, 2, 3],
        splits=["train", "train", "held_out", "tuning"],
        static={0: [("Age", 99), ("Age", 40)], 1: [("Age", 40)], 2: [("Age", 90)], 3: [("Age", 90)]},
    )
    found = code_statistics(made, {"HR": "bpm"})
    assert found == SiteStatistics(
        dynamic=(
            CodeStatistics("HR", "bpm", 4, 3, 1, 1, 75.0, 450.0),
            CodeStatistics("pH", "", 1, 1, 1, 1, 7.5, 0.0),
            CodeStatistics("ventilated", "", 1, 0, 1, 0, 0.0, 0.0),
        ),
        static=(CodeStatistics("Age", "", 1, 1, 1, 1, 40.0, 0.0),),
        stays=2,
        subjects=1,
    )


def test_no_training_stay_gives_empty_statistics() -> None:
    made = windows([[(0, "HR", 60)]], splits=["held_out"], static={0: [("Age", 40)]})
    assert code_statistics(made, {}) == SiteStatistics((), (), 0, 0)
    assert code_statistics(windows([]), {}) == merge_statistics([])


def test_numbers_far_from_zero_keep_their_spread() -> None:
    value = np.float32(1e6) + np.arange(8, dtype=np.float32) / 8
    found = code_statistics(windows([[(0.0, "PLT", float(v)) for v in value]]), {}).dynamic[0]
    assert found.m2 == pytest.approx(np.var(value.astype(np.float64)) * 8, rel=1e-12)


def pooled_and_parts(seed: int, sites: list[int]) -> tuple[Windows, list[Windows]]:
    """One cohort, and the same cohort spread over sites: `sites[i]` is stay i's site."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-3, 7)
    stays = [
        [(hours, code, value * scale if rng.random() < 0.8 else NAN) for hours, code, value in stay]
        for stay in random_stays(rng, list(rng.integers(0, 12, len(sites))), 4)
    ]
    static = {i: [("Age", float(rng.normal(60, 9)))] for i in range(len(sites)) if rng.random() < 0.7}
    parts = []
    for site in range(max(sites, default=0) + 2):  # the last site is empty
        members = [i for i, home in enumerate(sites) if home == site]
        parts.append(
            windows(
                [stays[i] for i in members],
                subjects=members,
                static={k: static[i] for k, i in enumerate(members) if i in static},
            )
        )
    return windows(stays, subjects=range(len(sites)), static=static), parts


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), sites=st.lists(st.integers(0, 4), max_size=25))
def test_merged_statistics_equal_pooled_ones(seed: int, sites: list[int]) -> None:
    pooled, parts = pooled_and_parts(seed, sites)
    whole = code_statistics(pooled, {})
    merged = merge_statistics([code_statistics(part, {}) for part in parts])
    assert (merged.stays, merged.subjects) == (whole.stays, whole.subjects)
    for ours, theirs in ((merged.dynamic, whole.dynamic), (merged.static, whole.static)):
        assert [e.code for e in ours] == [e.code for e in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert (a.count, a.numeric, a.subjects, a.numeric_subjects) == (
                b.count,
                b.numeric,
                b.subjects,
                b.numeric_subjects,
            )
            size = max(abs(b.mean), (b.m2 / max(b.numeric, 1)) ** 0.5)
            assert a.mean == pytest.approx(b.mean, rel=1e-9, abs=1e-9 * size)
            assert a.m2 == pytest.approx(b.m2, rel=1e-9, abs=1e-9 * size * size)


def test_pooled_statistics_equal_numpy() -> None:
    pooled, _ = pooled_and_parts(3, [0] * 200)
    for found in code_statistics(pooled, {}).dynamic:
        rows = pooled.triplets.filter(pl.col("code") == found.code)
        value = rows["value"].to_numpy().astype(np.float64)
        finite = value[np.isfinite(value)]
        assert (found.count, found.numeric) == (len(rows), len(finite))
        assert found.subjects == rows["stay"].n_unique()
        assert found.numeric_subjects == rows.filter(np.isfinite(value))["stay"].n_unique()
        assert found.mean == pytest.approx(finite.mean(), rel=1e-12)
        assert found.m2 == pytest.approx(finite.var() * len(finite), rel=1e-12)


def test_json_keeps_every_bit() -> None:
    pooled, _ = pooled_and_parts(1, [0] * 30)
    found = code_statistics(pooled, {"code 1": "mg/dL é"})
    assert SiteStatistics.from_json(found.to_json()) == found


def test_units_merge_unless_they_disagree() -> None:
    assert entry().merged(entry(unit="")).unit == "bpm"
    assert entry(unit="").merged(entry()).unit == "bpm"
    with pytest.raises(InputFault, match=r"HR.*bpm.*Hz"):
        entry().merged(entry(unit="Hz"))
    with pytest.raises(ValueError, match="do not merge"):
        entry().merged(entry(code="pH"))


def test_small_cells_stay_at_the_site() -> None:
    site = SiteStatistics(
        dynamic=(
            entry("common"),
            entry("one person's number", numeric_subjects=1),
            entry("rare", subjects=2),
        ),
        static=(entry("rare", subjects=2),),
        stays=9,
        subjects=9,
    )
    assert site.without_small_cells(3) == SiteStatistics(
        dynamic=(
            entry("common"),
            entry("one person's number", numeric=0, numeric_subjects=0, mean=0.0, m2=0.0),
        ),
        static=(),
        stays=9,
        subjects=9,
    )
    assert site.without_small_cells(1) == site
