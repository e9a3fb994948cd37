"""Units: spelling variants are one unit, rules convert exactly, what nobody can convert is refused."""

from __future__ import annotations

import pytest

from hymate.config import Conversion, RangeConfig, UnitRule, VocabularyConfig, parse
from hymate.data.quantiles import QuantileSketch
from hymate.data.statistics import CodeStatistics, SiteStatistics
from hymate.data.units import agreed_units, conversion, in_agreed_units, plain_unit
from hymate.data.vocabulary import VocabularyEntry, build_vocabulary
from hymate.errors import InputFault

GLUCOSE = UnitRule.model_validate({"unit": "mg/dL", "from": {"mmol/L": {"factor": 18.0}}})
RULES = {"Glucose": GLUCOSE}


def entry(unit: str, code: str = "Glucose", mean: float = 5.0) -> CodeStatistics:
    sketch = QuantileSketch((mean - 1, mean + 1), (0, 20, 0))
    return CodeStatistics(code, unit, 20, 20, 10, 10, mean, 19.0, (sketch,))


def site(*dynamic: CodeStatistics, static: tuple[CodeStatistics, ...] = ()) -> SiteStatistics:
    return SiteStatistics(dynamic, static, stays=10, subjects=10)


def test_spelling_does_not_make_another_unit() -> None:
    for variant in ("mmol/l", " mmol / L ", "MMOL/L"):
        assert plain_unit(variant) == plain_unit("mmol/L")
    assert plain_unit("\u03bcg/L") == plain_unit("\u00b5g/L")
    assert plain_unit("mg/dL") != plain_unit("mg/L")
    built = build_vocabulary(
        {"b": site(entry("MG/DL")), "a": site(entry("mg/dL")), "c": site(entry(" mg/dl"))}, VocabularyConfig()
    )
    assert built.codes[0].unit == "mg/dL"  # as the first site spells it


def test_an_undeclared_unit_is_taken_for_the_agreed_one() -> None:
    assert conversion("", "mg/dL", None) == Conversion()
    assert conversion("mg/dL", "", None) == Conversion()
    assert conversion("mmol/l", "mg/dL", GLUCOSE) == Conversion(factor=18.0)
    assert conversion("g/L", "mg/dL", GLUCOSE) is None
    assert conversion("mmol/L", "mg/dL", None) is None


def test_a_rule_converts_what_the_sites_sent() -> None:
    sites = {
        "a": site(entry("mmol/l", mean=5.0)),
        "b": site(entry("mg/dL", mean=100.0)),
        "c": site(entry("")),
    }
    agreed = in_agreed_units(sites, RULES)
    assert agreed["a"].dynamic == (
        CodeStatistics(
            "Glucose",
            "mg/dL",
            20,
            20,
            10,
            10,
            90.0,
            19.0 * 18 * 18,
            (QuantileSketch((72.0, 108.0), (0, 20, 0)),),
        ),
    )
    assert agreed["b"].dynamic == sites["b"].dynamic
    assert agreed["c"].dynamic[0].mean == 5.0
    built = build_vocabulary(sites, VocabularyConfig(units=RULES))
    assert built.codes[0].unit == "mg/dL"
    assert built.codes[0].mean == pytest.approx((90 + 100 + 5) / 3)
    assert built.units == RULES


def test_a_rule_counts_even_where_all_sites_agree() -> None:
    built = build_vocabulary({"a": site(entry("mmol/L"))}, VocabularyConfig(units=RULES))
    assert (built.codes[0].unit, built.codes[0].mean) == ("mg/dL", 90.0)


def test_a_unit_that_no_rule_knows_ends_the_phase() -> None:
    sites = {"a": site(entry("g/L"), entry("kg", "Weight")), "b": site(entry("mg/dL"), entry("lb", "Weight"))}
    with pytest.raises(InputFault) as fault:
        agreed_units({name: each.dynamic for name, each in sites.items()}, RULES)
    assert str(fault.value) == (
        "code 'Glucose': is measured in 'g/L' at a and 'mg/dL' at b, the study's rule knows 'mg/dL' and "
        "'mmol/L'; so are 1 more: Weight; convert to one unit at the sites, or say how under "
        "vocabulary.units.Glucose in the study file"
    )
    with pytest.raises(InputFault, match=r"'Age': is measured in 'months' at a and 'years' at b"):
        in_agreed_units(
            {"a": site(static=(entry("months", "Age"),)), "b": site(static=(entry("years", "Age"),))}, {}
        )


def test_one_site_with_two_units_is_one_entry_of_its_own_people() -> None:
    double = site(entry("mg/dL", mean=100.0), entry("mmol/L", mean=5.0))
    (merged,) = in_agreed_units({"a": double}, RULES)["a"].dynamic
    assert (merged.count, merged.subjects, merged.numeric_subjects) == (40, 10, 10)
    assert merged.mean == pytest.approx(95.0)
    with pytest.raises(InputFault, match="'mg/dL' at a and 'mmol/L' at a"):
        in_agreed_units({"a": double}, {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"units": {"x": {"unit": "g", "from": {"kg": {"factor": 0}}}}}, "finite factor other than 0"),
        ({"units": {"x": {"unit": "g", "from": {"kg": {"factr": 2}}}}}, "did you mean 'factor'"),
        ({"units": {"x": {"from": {}}}}, "units.x.unit' is missing"),
        ({"plausible": {"codes": {"x": {"low": 3, "high": 3}}}}, "low 3.0 is not below high 3.0"),
        ({"plausible": {"low": 0.7}}, "less than 0.5"),
        ({"scaling": "minmax"}, "'standard', 'robust' or 'quantile'"),
        ({"clip_z": 0}, "greater than 0"),
        ({"mapping": [{"local": "a"}]}, "shared"),
    ],
)
def test_a_study_that_says_it_wrong_is_told_where(content: dict[str, object], words: str) -> None:
    with pytest.raises(InputFault, match=words):
        parse(VocabularyConfig, content, "study.yaml")


def test_rules_survive_being_written_and_read() -> None:
    config = VocabularyConfig(
        units=RULES,
        plausible={"codes": {"HR": RangeConfig(low=20)}},  # type: ignore[arg-type]
    )
    written = config.model_dump(mode="json", exclude_none=True)
    assert written["units"]["Glucose"]["from"] == {"mmol/L": {"factor": 18.0, "offset": 0.0}}
    assert VocabularyConfig.model_validate(written) == config
    assert VocabularyEntry("x", "", 0.0, 1.0, True).location_and_scale == (0.0, 1.0)
