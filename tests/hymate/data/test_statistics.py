"""Statistics of codes: right by hand, mergeable over any partition, and silent on small cells."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.config import MappedCode
from hymate.data.statistics import (
    CodeStatistics,
    SiteStatistics,
    code_statistics,
    merge_entries,
    merge_statistics,
)
from hymate.data.tasks import Windows
from hymate.errors import InputFault
from tests.hymate.data.small import NAN, random_stays, windows


def entry(code: str = "HR", **changes: object) -> CodeStatistics:
    base = CodeStatistics(code, "bpm", count=4, numeric=4, subjects=3, numeric_subjects=3, mean=5.0, m2=2.0)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def without_quantiles(site: SiteStatistics) -> SiteStatistics:
    """Quantiles have their own tests."""
    return dataclasses.replace(
        site,
        dynamic=tuple(dataclasses.replace(entry, sketches=()) for entry in site.dynamic),
        static=tuple(dataclasses.replace(entry, sketches=()) for entry in site.static),
    )


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
    found = without_quantiles(code_statistics(made, {"HR": "bpm"}))
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


@settings(max_examples=40, deadline=None)
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


@pytest.mark.parametrize(("factor", "offset"), [(18.0182, 0.0), (-1.0, 0.0), (5 / 9, -160 / 9)])
@given(seed=st.integers(0, 99), sites=st.lists(st.integers(0, 2), min_size=1, max_size=60))
@settings(max_examples=10, deadline=None)
def test_converting_and_merging_may_change_places(
    factor: float, offset: float, seed: int, sites: list[int]
) -> None:
    _, parts = pooled_and_parts(seed, sites)
    separate = [code_statistics(part, {}).dynamic for part in parts]
    after = [
        entry.converted(factor, offset, "new")
        for entry in merge_entries(e for entries in separate for e in entries)
    ]
    before = merge_entries(e.converted(factor, offset, "new") for entries in separate for e in entries)
    for a, b in zip(before, after, strict=True):
        assert (a.code, a.unit, a.count, a.numeric) == (b.code, b.unit, b.count, b.numeric)
        assert a.sketches == b.sketches
        size = max(abs(b.mean), (b.m2 / max(b.numeric, 1)) ** 0.5)
        assert a.mean == pytest.approx(b.mean, rel=1e-9, abs=1e-9 * size)
        assert a.m2 == pytest.approx(b.m2, rel=1e-9, abs=1e-9 * size * size)


def test_a_conversion_is_that_of_every_value() -> None:
    celsius = [36.5, 37.0, 41.0, 35.25]
    doubled = [value * 2.0 + 0.5 for value in celsius]  # exact in float32, which windows hold
    found, wanted = (
        code_statistics(windows([[(0.0, "Temp", value)] for value in values]), {}).dynamic[0]
        for values in (celsius, doubled)
    )
    converted = found.converted(2.0, 0.5, "doubled")
    assert converted.unit == "doubled"
    assert converted.mean == pytest.approx(wanted.mean, rel=1e-12)
    assert converted.m2 == pytest.approx(wanted.m2, rel=1e-9)
    assert entry(numeric=0, numeric_subjects=0, mean=0.0, m2=0.0).converted(1.0, 32.0, "x").mean == 0.0


def hospital() -> Windows:
    """23 training subjects: `common` at all, one of them once without a number; `gap` at 12, with a
    number at 4; `rare` at 4; SEX//M at 3, SEX//F at 20; Age at 22."""
    stays = []
    for person in range(23):
        stay = [(0.0, "common", 100.0 + person)]
        stay += [(1.0, "common", NAN)] if person == 7 else []
        stay += [(1.0, "gap", float(person) if person < 4 else NAN)] if person < 12 else []
        stay += [(2.0, "rare", 77.7)] if person < 4 else []
        stays.append(stay)
    static: dict[int, list[tuple[str, float | None]]] = {
        person: [("SEX//M" if person < 3 else "SEX//F", None)] + ([("Age", 50.0 + person)] if person else [])
        for person in range(23)
    }
    return windows(stays, static=static)


def test_small_cells_stay_at_the_site() -> None:
    found = code_statistics(hospital(), {}, min_cell=5)
    common, gap = found.dynamic
    assert [entry.code for entry in found.dynamic] == ["common", "gap"]
    # The one event without a number is one person's: the code is told as if it had not been.
    assert (common.count, common.numeric, common.subjects, common.numeric_subjects) == (23, 23, 20, 20)
    assert common.mean == pytest.approx(111.0)
    # Numbers of 4 people: none is told.
    assert gap == CodeStatistics("gap", "", 12, 0, 10, 0, 0.0, 0.0)
    # 23 people less 20 women would be 3 men; multiples of 5 say neither.
    age, women = found.static
    assert women == CodeStatistics("SEX//F", "", 20, 0, 20, 0, 0.0, 0.0)
    assert (age.code, age.count, age.numeric, age.subjects) == ("Age", 20, 20, 20)
    assert age.mean == pytest.approx(np.mean([50.0 + person for person in range(1, 21)]))
    assert (found.stays, found.subjects) == (20, 20)


def test_without_a_minimum_everything_is_told() -> None:
    found = code_statistics(hospital(), {})
    assert [(entry.code, entry.count, entry.subjects) for entry in found.dynamic] == [
        ("common", 24, 23),
        ("gap", 12, 12),
        ("rare", 4, 4),
    ]
    assert [(entry.code, entry.count) for entry in found.static] == [
        ("Age", 22),
        ("SEX//F", 20),
        ("SEX//M", 3),
    ]
    assert (found.stays, found.subjects) == (23, 23)


def test_a_site_of_fewer_people_than_the_minimum_says_nothing() -> None:
    made = windows([[(0, "HR", 60.0)]] * 6, subjects=[1, 1, 2, 2, 3, 4], static={0: [("Age", 40)]})
    assert code_statistics(made, {}, min_cell=5) == SiteStatistics((), (), 0, 0)
    assert code_statistics(made, {}, min_cell=4).stays == 4


def test_local_codes_are_counted_under_their_shared_name() -> None:
    lines = (
        MappedCode(local="heart", shared="HR"),
        MappedCode(local="puls", shared="HR", site="south"),
        MappedCode(local="glu", shared="Glucose", factor=18.0, unit="mg/dL"),
        MappedCode(local="years", shared="Age"),
    )
    made = windows(
        [
            [(0, "heart", 60), (1, "puls", 70), (2, "glu", 5)],
            [(0, "HR", 80), (1, "glu", 6)],
        ],
        static={0: [("years", 40.0), ("Age", 41.0)], 1: [("years", 50.0)]},
    )
    units = {"heart": "bpm", "puls": "bpm", "HR": "bpm", "glu": "mmol/L"}
    south = without_quantiles(code_statistics(made, units, mapping=lines, site="south"))
    assert south.dynamic == (
        CodeStatistics("Glucose", "mg/dL", 2, 2, 2, 2, 99.0, 162.0),
        CodeStatistics("HR", "bpm", 3, 3, 2, 2, 70.0, 200.0),
    )
    assert south.static == (CodeStatistics("Age", "", 2, 2, 2, 2, 45.5, 40.5),)
    north = code_statistics(made, units, mapping=lines, site="north")
    assert [(entry.code, entry.count) for entry in north.dynamic] == [("Glucose", 2), ("HR", 2), ("puls", 1)]


def test_local_codes_in_two_units_stay_apart() -> None:
    made = windows([[(0, "a", 1), (1, "b", 1000)]])
    lines = (MappedCode(local="a", shared="x"), MappedCode(local="b", shared="x"))
    found = code_statistics(made, {"a": "g", "b": "mg"}, mapping=lines).dynamic
    assert [(entry.code, entry.unit, entry.mean) for entry in found] == [("x", "g", 1.0), ("x", "mg", 1000.0)]
