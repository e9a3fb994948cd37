"""Whether a report.json is described: valid under the published schema, and no key beside it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from hymate.report.content import Report
from hymate.report.schema import published_schema


def assert_described(report: dict[str, Any]) -> None:
    """Every key stands in `hymate.report.content`, and the published schema holds."""
    jsonschema.validate(report, json.loads(published_schema()))
    kept = Report.model_validate(report).model_dump(mode="json", exclude_unset=True)
    told, described = _leaves(json.loads(json.dumps(report))), _leaves(kept)
    assert set(told) == set(described), f"not in hymate.report.content: {sorted(set(told) ^ set(described))}"
    assert told == described


def _leaves(content: Any, key: str = "") -> dict[str, Any]:
    """Place in the report -> what stands there."""
    if isinstance(content, dict):
        parts = content.items()
    elif isinstance(content, list):
        parts = enumerate(content)
    else:
        return {key: content}
    return {place: leaf for name, part in parts for place, leaf in _leaves(part, f"{key}/{name}").items()}
