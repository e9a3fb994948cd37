"""The vocabulary: what gets in, under which index and scale, and a hash that means "same numbers"."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from meds.schema import CodeMetadataSchema

from hymate.config import MappedCode, UnitRule, VocabularyConfig
from hymate.data.codes_table import write_codes_table
from hymate.data.statistics import CodeStatistics, SiteStatistics, code_statistics
from hymate.data.vocabulary import DroppedCode, Vocabulary, VocabularyEntry, build_vocabulary
from hymate.errors import InputFault
from tests.hymate.data.small import random_stays, windows

ALL = VocabularyConfig(min_count=1)


def entry(code: str, unit: str = "", count: int = 10, mean: float = 0.0, m2: float = 9.0) -> CodeStatistics:
    return CodeStatistics(code, unit, count, count, subjects=5, numeric_subjects=5, mean=mean, m2=m2)


def numberless(code: str, count: int = 10) -> CodeStatistics:
    return CodeStatistics(code, "", count, 0, subjects=5, numeric_subjects=0, mean=0.0, m2=0.0)


def site(*dynamic: CodeStatistics, static: tuple[CodeStatistics, ...] = ()) -> SiteStatistics:
    return SiteStatistics(dynamic, static, stays=20, subjects=20)


FIXED = Vocabulary(
    codes=(VocabularyEntry("HR", "bpm", 80.1, 12.5, True), VocabularyEntry("é", "", 0.0, 1.0, False)),
    static=(VocabularyEntry("Age", "years", 61.0, 0.1 + 0.2, True),),
)


def test_indices_scales_and_static_columns() -> None:
    built = build_vocabulary(
        {
            "north": site(
                entry("HR", "bpm", count=2, mean=1.0, m2=0.0),
                numberless("ventilated"),
                static=(numberless("SEX//F"),),
            ),
            "south": site(
                entry("HR", "", count=2, mean=5.0, m2=2.0), entry("pH"), static=(entry("Age", mean=60.0),)
            ),
        },
        ALL,
    )
    # HR pooled: 1, 1, 4, 6: mean 3, squared deviations 4 + 4 + 1 + 9 = 18, over n - 1 = 3.
    assert built.codes == (
        VocabularyEntry("HR", "bpm", 3.0, 6.0**0.5, True),
        VocabularyEntry("pH", "", 0.0, 1.0, True),
        VocabularyEntry("ventilated", "", 0.0, 1.0, False),
    )
    assert built.size == 3
    assert built.index == {"HR": 1, "pH": 2, "ventilated": 3}
    assert built.static_names == ("Age", "Age?", "SEX//F")
    assert built.static_width == 3
    assert built.dropped == ()


@pytest.mark.parametrize(
    ("count", "mean", "m2"),
    [(1, 7.0, 0.0), (10, 7.0, 0.0), (10, 7.0e5, 1e-12)],
    ids=["one number", "no spread", "rounding only"],
)
def test_without_spread_the_scale_is_one(count: int, mean: float, m2: float) -> None:
    built = build_vocabulary({"a": site(entry("x", count=count, mean=mean, m2=m2))}, ALL)
    assert built.codes[0] == VocabularyEntry("x", "", mean, 1.0, True)


def test_rare_codes_are_dropped_and_reported() -> None:
    sites = {
        "a": site(entry("both", count=6), entry("only a", count=50), static=(numberless("SEX//X", 2),)),
        "b": site(entry("both", count=6), entry("few", count=3)),
    }
    built = build_vocabulary(sites, VocabularyConfig(min_count=10, min_sites=2))
    assert list(built.index) == ["both"]
    assert built.static == ()
    assert built.dropped == (
        DroppedCode("few", "seen 3 times, min_count is 10"),
        DroppedCode("only a", "seen at 1 sites, min_sites is 2"),
        DroppedCode("SEX//X", "seen 2 times, min_count is 10"),
    )


def test_nothing_left_is_a_fault() -> None:
    with pytest.raises(InputFault, match="no code is left of 1"):
        build_vocabulary({"a": site(entry("x", count=3))}, VocabularyConfig())


def test_a_unit_conflict_names_code_units_and_sites() -> None:
    sites = {
        "a": site(entry("glucose", "mg/dL")),
        "b": site(entry("glucose", "mmol/L")),
        "c": site(entry("glucose", "mg/dL")),
        "d": site(entry("glucose", "")),
    }
    with pytest.raises(InputFault) as fault:
        build_vocabulary(sites, ALL)
    assert str(fault.value) == (
        "code 'glucose': is measured in 'mg/dL' at a, c and 'mmol/L' at b; convert to one unit at the "
        "sites, or say how under vocabulary.units.glucose in the study file"
    )


def test_the_hash_does_not_depend_on_the_order_of_sites() -> None:
    sites = {f"site {i}": site(entry("x", mean=0.1 * i, m2=1 / (i + 3))) for i in range(5)}
    backwards = dict(reversed(sites.items()))
    assert build_vocabulary(sites, ALL).hash == build_vocabulary(backwards, ALL).hash


def test_the_hash_is_the_same_on_every_platform() -> None:
    # Written out: a change of this text refuses every store that sites have prepared.
    scale = '"centre":null,"code":"{}","high":null,"knots":[],"low":null,'
    canonical = (
        '{"clip_z":null,"codes":[{'
        + scale.replace("{}", "HR")
        + '"mean":80.1,"numeric":true,"spread":null,"std":12.5,"unit":"bpm"},{'
        + scale.replace("{}", "\\u00e9")
        + '"mean":0.0,"numeric":false,"spread":null,"std":1.0,"unit":""}],'
        '"mapping":[],"outside":"clip","scaling":"standard","schema":2,"static":[{'
        + scale.replace("{}", "Age")
        + '"mean":61.0,"numeric":true,"spread":null,"std":0.30000000000000004,"unit":"years"}],"units":{}}'
    )
    assert FIXED.hash == hashlib.sha256(canonical.encode("ascii")).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"code": "HR2"},
        {"unit": "Hz"},
        {"mean": 80.10000000000001},
        {"std": 12.500000000000002},
        {"numeric": False},
        {"low": 1.0},
        {"high": 1.0},
        {"centre": 80.0},
        {"spread": 10.0},
        {"knots": (1.0, 2.0)},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("group", ["codes", "static"])
def test_the_hash_changes_with_what_matters(group: str, change: dict[str, object]) -> None:
    entries = getattr(FIXED, group)
    original = dataclasses.replace(entries[0], code="HR", unit="bpm", mean=80.1, std=12.5)
    before: dict[str, Any] = {group: (original, *entries[1:])}
    after: dict[str, Any] = {group: (dataclasses.replace(original, **change), *entries[1:])}
    assert dataclasses.replace(FIXED, **before).hash != dataclasses.replace(FIXED, **after).hash


def test_the_hash_sees_the_order_but_not_the_report() -> None:
    assert dataclasses.replace(FIXED, codes=FIXED.codes[::-1]).hash != FIXED.hash
    assert dataclasses.replace(FIXED, dropped=(DroppedCode("x", "rare"),)).hash == FIXED.hash


RULES = {"Glucose": UnitRule.model_validate({"unit": "mg/dL", "from": {"mmol/L": {"factor": 18.0}}})}


@pytest.mark.parametrize(
    "change",
    [
        {"scaling": "robust"},
        {"outside": "drop"},
        {"clip_z": 10.0},
        {"mapping": (MappedCode(local="puls", shared="HR"),)},
        {"mapping": (MappedCode(local="puls", shared="HR", site="south"),)},
        {"units": RULES},
        {"units": {"Glucose": UnitRule(unit="mg/dL")}},
    ],
    ids=str,
)
def test_the_hash_changes_with_every_setting_that_changes_encoding(change: dict[str, Any]) -> None:
    assert dataclasses.replace(FIXED, **change).hash != FIXED.hash


@pytest.mark.parametrize(
    "setting",
    [
        {"scaling": "robust"},
        {"scaling": "quantile"},
        {"clip_z": 5.0},
        {"plausible": {"outside": "drop"}},
        {"plausible": {"outside": "keep"}},
        {"plausible": {"low": 0.01}},
        {"plausible": {"high": 0.99}},
        {"plausible": {"margin": 0.25}},
        {"plausible": {"codes": {"code 0": {"low": -1.0}}}},
        {"mapping": [{"local": "code 0", "shared": "code zero"}]},
        {"units": {"code 0": {"unit": "mg/dL", "from": {"g/L": {"factor": 100.0}}}}},
        {"units": {"code 0": {"unit": "mg/dL", "from": {"g/L": {"factor": 10.0}}}}},
    ],
    ids=str,
)
def test_every_setting_of_a_study_reaches_the_hash(setting: dict[str, Any]) -> None:
    sites = {"a": code_statistics(windows(random_stays(np.random.default_rng(0), [40] * 30, 3)), {})}
    plain = build_vocabulary(sites, VocabularyConfig())
    assert build_vocabulary(sites, VocabularyConfig.model_validate(setting)).hash != plain.hash
    assert build_vocabulary(sites, VocabularyConfig(min_count=11)).hash == plain.hash


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    reported = dataclasses.replace(
        FIXED,
        codes=(dataclasses.replace(FIXED.codes[0], low=-1.5, high=1e300, centre=80.0, knots=(0.1, 0.2)),),
        dropped=(DroppedCode("x", "rare"),),
        mapping=(MappedCode(local="a", shared="HR", site="north", factor=2.0, unit="bpm"),),
        units=RULES,
        scaling="quantile",
        outside="drop",
        clip_z=7.5,
    )
    path = tmp_path / "run" / "vocabulary.json"
    reported.save(path)
    assert Vocabulary.load(path) == reported
    assert [file.name for file in path.parent.iterdir()] == ["vocabulary.json"]


def test_a_vocabulary_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    with pytest.raises(InputFault, match=r"cannot be read"):
        Vocabulary.load(path)
    FIXED.save(path)
    content = json.loads(path.read_text())

    content["codes"][0]["mean"] = 0.0
    path.write_text(json.dumps(content))
    with pytest.raises(InputFault, match=r"vocabulary\.json: holds hash .* but its content has"):
        Vocabulary.load(path)
    path.write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(InputFault, match="schema version 99"):
        Vocabulary.load(path)
    path.write_text('{"schema": 1, "codes": []}')
    with pytest.raises(InputFault, match="schema version 1, this program reads 2"):
        Vocabulary.load(path)
    for broken in ("{", "[]", '{"schema": 2}', '{"schema": 2, "codes": [{}]}'):
        path.write_text(broken)
        with pytest.raises(InputFault, match="is not a vocabulary"):
            Vocabulary.load(path)


def test_the_code_table_is_one_that_meds_accepts(tmp_path: Path) -> None:
    path = tmp_path / "run" / "codes.parquet"
    write_codes_table(path, FIXED)
    table = pq.read_table(path)
    CodeMetadataSchema.validate(table)
    rows = [
        {key: row[key] for key in ("code", "unit", "code/vocab_index", "values/mean", "values/std")}
        for row in table.to_pylist()
    ]
    assert rows == [
        {"code": "HR", "unit": "bpm", "code/vocab_index": 1, "values/mean": 80.1, "values/std": 12.5},
        {"code": "é", "unit": None, "code/vocab_index": 2, "values/mean": None, "values/std": None},
    ]
    assert [file.name for file in path.parent.iterdir()] == ["codes.parquet"]
