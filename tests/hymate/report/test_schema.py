"""The published schema is that of the typed content, and whole reports obey it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from hymate.report.schema import as_text, make_schema, published_schema
from tests.hymate.report.example import content
from tests.hymate.report.whole import assert_described


def test_the_published_schema_is_up_to_date() -> None:
    assert published_schema() == as_text(make_schema()), "hymate.report.schema: write schema.json anew"


def test_the_example_obeys_the_schema_and_holds_nothing_beside_it() -> None:
    jsonschema.Draft202012Validator.check_schema(make_schema())
    assert_described(content())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda report: report.pop("performance"),
        lambda report: report.update(format=1),
        lambda report: report["pooled"].update(auroc="good"),
        lambda report: report["performance"]["pooled"]["figures"]["auroc"].pop("bound"),
    ],
)
def test_the_schema_refuses_what_is_no_report(spoil: Any) -> None:
    report = content()
    spoil(report)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, json.loads(published_schema()))


def test_a_key_without_a_description_is_found() -> None:
    report = content()
    report["rounds"]["new"] = 1
    with pytest.raises(AssertionError, match="rounds/new"):
        assert_described(report)
