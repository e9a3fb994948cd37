"""A finished study's run directory, as far as its report needs it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hymate.config import load_yaml
from hymate.errors import InputFault
from hymate.report.card import ModelCard, read_card
from hymate.report.content import FORMAT, Report
from hymate.report.importance import Importance, read_importances

REPORT, METRICS, STUDY, PAGE = "report.json", "metrics.jsonl", "study.yaml", "report.html"


@dataclass(frozen=True)
class FinishedRun:
    """What `report.html` is made from. metrics: lines of `metrics.jsonl`; study: the study file as run."""

    report: Report
    metrics: list[dict[str, Any]]
    study: str
    card: ModelCard = field(default_factory=ModelCard)
    importances: dict[str, Importance] = field(default_factory=dict)


def read_run(folder: Path) -> FinishedRun:
    """Everything the page shows.

    Raises:
        InputFault: no such folder, no finished study in it, files of another program or of another version.
    """
    report = read_report(folder)
    return FinishedRun(
        report, _metrics(folder / METRICS), _text(folder / STUDY), read_card(folder), read_importances(folder)
    )


def read_report(folder: Path) -> Report:
    """`report.json` alone; raises as `read_run`."""
    if not folder.is_dir():
        raise InputFault(folder, "is no folder", "name the run directory of a study, as runs/demo")
    path = folder / REPORT
    if not path.is_file():
        state = "the study there has not finished" if (folder / STUDY).is_file() else "no study was run there"
        raise InputFault(folder, f"holds no {REPORT}: {state}", "name the run directory of a finished study")
    content = _json(path, path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise InputFault(
            path, "is no report of a federated study", "name a run directory of a federated study"
        )
    if content["format"] != FORMAT:
        age = "an older" if content["format"] < FORMAT else "a newer"
        raise InputFault(
            path,
            f"was written by {age} version (format {content['format']}; this version reads {FORMAT})",
            "show it with the version that is named under `versions` in it",
        )
    try:
        return Report.model_validate(content)
    except ValidationError as fault:
        error = fault.errors()[0]
        raise InputFault(
            path,
            f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}",
            "the file was changed; take it from where the study ran",
        ) from None


def read_study(path: Path) -> dict[str, Any]:
    """The study file as run, as plain content: any version's; raises as `read_run`."""
    return load_yaml(path)


def _metrics(path: Path) -> list[dict[str, Any]]:
    return [_json(path, line) for line in _text(path).splitlines()]


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as fault:
        raise InputFault(
            path, f"is not JSON (line {fault.lineno})", "take the file from where the study ran"
        ) from None


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputFault(path, "is missing", "name a whole run directory; the report needs this file, too")
    return path.read_text(encoding="utf-8")
