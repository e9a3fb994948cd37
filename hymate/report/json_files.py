"""JSON files of a run directory; what is none is a fault of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hymate.errors import InputFault

REMEDY = "take the file from where the study ran"


def read_json(path: Path) -> Any:
    """Content of a file. Raises: InputFault: it is missing, or no JSON."""
    return _parsed(path, _text(path))


def read_json_lines(path: Path) -> list[Any]:
    """One object a line; raises as `read_json`."""
    return [_parsed(path, line) for line in _text(path).splitlines()]


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputFault(path, "is missing", "name a whole run directory; the report needs this file, too")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputFault(path, "is no text", REMEDY) from None


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as fault:
        raise InputFault(path, f"is not JSON ({fault.msg})", REMEDY) from None
