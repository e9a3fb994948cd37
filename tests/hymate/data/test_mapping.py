"""Local codes become the study's: mapping files, and windows in the vocabulary's codes and units."""

from __future__ import annotations

from pathlib import Path

import pytest

from hymate.config import MappedCode, UnitRule
from hymate.data.mapping import SharedCode, load_mapping, shared_code, translated
from hymate.data.vocabulary import Vocabulary, VocabularyEntry
from hymate.errors import InputFault
from tests.hymate.data.small import NAN, windows

LINES = (
    MappedCode(local="puls", shared="HR"),
    MappedCode(local="puls", shared="Pulse", site="south"),
    MappedCode(local="temp_f", shared="Temp", factor=0.5, offset=-16.0),
    MappedCode(local="glu", shared="Glucose", factor=18.0, unit="mg/dL"),
)


def test_a_sites_own_line_goes_first() -> None:
    assert shared_code("puls", "bpm", LINES, "north") == SharedCode("HR", "bpm")
    assert shared_code("puls", "bpm", LINES, "south") == SharedCode("Pulse", "bpm")
    assert shared_code("puls", "bpm", LINES[::-1], "south") == SharedCode("Pulse", "bpm")
    assert shared_code("other", "g", LINES, "north") == SharedCode("other", "g")
    # After a conversion the local unit no longer holds.
    assert shared_code("temp_f", "°F", LINES, "north") == SharedCode("Temp", "", 0.5, -16.0)
    assert shared_code("glu", "mmol/L", LINES, "north") == SharedCode("Glucose", "mg/dL", 18.0, 0.0)


def vocabulary(**changes: object) -> Vocabulary:
    content: dict[str, object] = {
        "codes": (
            VocabularyEntry("Glucose", "mg/dL", 0.0, 1.0, True),
            VocabularyEntry("HR", "bpm", 0.0, 1.0, True),
            VocabularyEntry("Temp", "°C", 0.0, 1.0, True),
        ),
        "static": (VocabularyEntry("Height", "cm", 0.0, 1.0, True),),
        "mapping": LINES,
        "units": {
            "Glucose": UnitRule.model_validate({"unit": "mg/dL", "from": {"mmol/L": {"factor": 18.0}}}),
            "Height": UnitRule.model_validate({"unit": "cm", "from": {"m": {"factor": 100.0}}}),
        },
        **changes,
    }
    return Vocabulary(**content)  # type: ignore[arg-type]


def test_windows_in_shared_codes_and_units() -> None:
    made = windows(
        [[(0, "puls", 60), (1, "temp_f", 100), (2, "glu", 5), (3, "Glucose", 6), (4, "puls", NAN)]],
        static={0: [("Height", 1.8), ("SEX//F", None)]},
    )
    units = {"puls": "BPM", "temp_f": "°F", "glu": "mmol/L", "Glucose": "mmol/l", "Height": "m"}
    found = translated(made, units, vocabulary(), "north")
    assert found.triplets["code"].to_list() == ["HR", "Temp", "Glucose", "Glucose", "HR"]
    assert found.triplets["value"].to_list()[:4] == [60.0, 34.0, 90.0, 108.0]
    assert found.triplets["value"].is_nan().to_list() == [False] * 4 + [True]
    assert found.triplets.drop("code", "value").equals(made.triplets.drop("code", "value"))
    assert found.static["code"].to_list() == ["Height", "SEX//F"]
    assert found.static["numeric_value"].to_list() == [pytest.approx(180.0), None]
    assert found.triplets.schema == made.triplets.schema
    assert found.static.schema == made.static.schema
    assert (found.stays is made.stays, found.left_out is made.left_out) == (True, True)


def test_a_mapped_value_is_converted_by_its_line_and_then_by_the_unit_rule() -> None:
    lines = (MappedCode(local="zucker", shared="Glucose", factor=2.0, offset=1.0, unit="mmol/L"),)
    rule = UnitRule.model_validate({"unit": "mg/dL", "from": {"mmol/L": {"factor": 18.0, "offset": 0.5}}})
    made = windows([[(0, "zucker", 3)]])
    found = translated(made, {}, vocabulary(mapping=lines, units={"Glucose": rule}), "north")
    assert found.triplets["value"].to_list() == [(3 * 2 + 1) * 18 + 0.5]


def test_a_unit_that_nobody_can_convert_becomes_an_unknown_code() -> None:
    made = windows([[(0, "HR", 1.2), (1, "Temp", 37)]])
    found = translated(made, {"HR": "Hz"}, vocabulary(), "north")
    assert found.triplets["code"].to_list() == ["HR [Hz]", "Temp"]
    assert found.triplets["value"].to_list() == made.triplets["value"].to_list()


def test_a_site_that_speaks_the_shared_language_keeps_its_windows() -> None:
    made = windows([[(0, "HR", 60)]], static={0: [("Height", 180.0)]})
    assert translated(made, {"HR": "bpm", "Height": "cm"}, vocabulary(), "north") is made


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_mapping_files(tmp_path: Path) -> None:
    wanted = (
        MappedCode(local="LAB//50931//mg/dL", shared="Glucose"),
        MappedCode(local="glu", shared="Glucose", site="south", factor=18.0, unit="mg/dL"),
    )
    csv = write(
        tmp_path / "m.csv",
        "\ufefflocal,shared,site,factor,unit\nLAB//50931//mg/dL,Glucose,,,\nglu,Glucose,south,18.0,mg/dL\n",
    )
    assert load_mapping(csv) == wanted
    listed = write(
        tmp_path / "m.yaml",
        "- {local: LAB//50931//mg/dL, shared: Glucose}\n"
        "- {local: glu, shared: Glucose, site: south, factor: 18, unit: mg/dL}\n",
    )
    assert load_mapping(listed) == wanted
    plain = write(tmp_path / "n.yaml", "puls: HR\nRR: RespRate\n")
    assert load_mapping(plain) == (
        MappedCode(local="puls", shared="HR"),
        MappedCode(local="RR", shared="RespRate"),
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "lokal,shared\na,b\n", "has no column local; columns: local, shared, site"),
        ("m.csv", "local,shared\na,b,c\n", r"m\.csv line 2: .*more columns than the header"),
        ("m.csv", "local,shared\na,\n", r"m\.csv line 2: key 'shared' is missing"),
        ("m.csv", "local,shared,factor\na,b,x\n", r"m\.csv line 2: key 'factor'"),
        ("m.csv", "local,shared\na,b\na,c\n", "'a' is mapped to 'b' and to 'c'"),
        ("m.csv", "local,shared\na,\xe9\n", "cannot be read"),
        ("m.yaml", "a: [", "cannot be read"),
        ("m.yaml", "3", "is neither a list of entries nor"),
        ("m.yaml", "- {local: a, shard: b}", r"m\.yaml entry 1: .*did you mean 'shared'"),
        ("m.yaml", "a: {b: c}", r"key 'shared'"),
    ],
)
def test_a_bad_mapping_file_is_one_line(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputFault, match=words) as fault:
        load_mapping(path)
    assert "\n" not in str(fault.value)
    with pytest.raises(InputFault, match="no such file"):
        load_mapping(tmp_path / "missing.csv")
