"""The published JSON schema of `report.json`: `schema.json` beside this module, made from `content`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from hymate.report.content import FORMAT, Report


def make_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    schema = Report.model_json_schema()
    schema["properties"]["format"]["const"] = FORMAT
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"report.json of a federated study, format {FORMAT}",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def as_text(schema: dict[str, Any]) -> str:
    """As the file holds it."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def published_schema() -> str:
    """The file's text."""
    return files("hymate.report").joinpath("schema.json").read_text(encoding="utf-8")
