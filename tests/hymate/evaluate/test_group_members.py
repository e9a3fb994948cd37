"""Groups from the static rows of a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from hymate.config import VocabularyConfig
from hymate.data.statistics import code_statistics
from hymate.data.store import TripletStore, prepare_store
from hymate.data.vocabulary import build_vocabulary
from hymate.evaluate.group_members import crossed, members
from hymate.evaluation_config import AttributeConfig, EvaluationConfig
from tests.hymate.data.small import TASK, windows

STATIC = {
    0: [("GENDER//F", None), ("AGE", 44.0), ("DIABETES", None)],
    1: [("GENDER//M", None), ("AGE", 45.0)],
    2: [("GENDER//M", None), ("GENDER//F", None), ("AGE", 90.0)],
    3: [("AGE", None)],
    4: [("GENDER//M", None), ("AGE", 20.0), ("AGE", 70.0), ("GENDERLESS//X", None)],
}


def store(path: Path, min_count: int = 1) -> TripletStore:
    made = windows([[(1.0, "HR", 80.0)]] * 5, static=STATIC)
    learnt = build_vocabulary({"site": code_statistics(made, {})}, VocabularyConfig(min_count=min_count))
    return prepare_store(path, made, learnt, TASK)


def names(made: TripletStore, attribute: AttributeConfig) -> list[str | None]:
    found = members(made, np.arange(5), attribute)
    return [None if group < 0 else found.names[group] for group in found.group]


@pytest.mark.parametrize("min_count", [1, 4])  # what the model does not know is a group all the same
def test_codes_bands_and_flags(tmp_path: Path, min_count: int) -> None:
    made = store(tmp_path / "store", min_count)
    assert names(made, AttributeConfig(code="GENDER")) == [
        "GENDER//F", "GENDER//M", "GENDER//several", None, "GENDER//M",
    ]  # fmt: skip
    age = AttributeConfig(code="AGE", name="age", cuts=(45, 65))
    assert names(made, age) == ["age//<45", "age//45-<65", "age//65+", None, "age//65+"]
    assert names(made, AttributeConfig(code="DIABETES")) == ["DIABETES//yes", *["DIABETES//no"] * 4]
    assert names(made, AttributeConfig(code="INSURANCE")) == [None] * 5
    some = members(made, np.array([4, 0]), age)
    assert [some.names[group] for group in some.group] == ["age//65+", "age//<45"]


def test_two_attributes_together(tmp_path: Path) -> None:
    made = store(tmp_path / "store")
    gender, age = (
        members(made, np.arange(5), AttributeConfig(code=code, cuts=cuts))
        for code, cuts in (("GENDER", ()), ("AGE", (65,)))
    )
    both = crossed(gender, age)
    found = [None if group < 0 else both.names[group] for group in both.group]
    assert found[:3] == ["GENDER//F & AGE//<65", "GENDER//M & AGE//<65", "GENDER//several & AGE//65+"]
    assert found[3:] == [None, "GENDER//M & AGE//65+"]


def test_the_study_names_groups_in_a_word_or_in_full() -> None:
    config = EvaluationConfig.model_validate(
        {
            "groups": ["GENDER", {"code": "AGE", "cuts": [45, 65]}, "UNIT"],
            "intersections": [["GENDER", "AGE"]],
        }
    )
    assert [attribute.label for attribute in config.groups] == ["GENDER", "AGE", "UNIT"]
    assert config.pairs == (("GENDER", "AGE"),)
    assert len(EvaluationConfig.model_validate({"groups": ["A", "B", "C"], "intersections": True}).pairs) == 3
    again = EvaluationConfig.model_validate(config.model_dump(mode="json", exclude_none=True))
    assert again == config


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"groups": ["GENDER", "GENDER"]}, "each name once"),
        ({"groups": [{"code": "AGE", "cuts": [65, 45]}]}, "ascend"),
        ({"groups": ["GENDER"], "intersections": [["GENDER", "AGE"]]}, "not two of groups"),
        ({"operating_point": {"sensitivity": 0.8, "threshold": 0.5}}, "exactly one"),
        ({"operating_point": {}}, "exactly one"),
        ({"groups": ["A & B"]}, "pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused(content: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EvaluationConfig.model_validate(content)
