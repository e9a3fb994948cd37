"""A finished study's run directory, as far as its report needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hymate.config import load_yaml, parse
from hymate.errors import InputFault
from hymate.report.card import ModelCard, read_card
from hymate.report.content import FORMAT, Report
from hymate.report.importance import Importance, read_importances
from hymate.report.json_files import read_json, read_json_lines

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
    metrics = read_json_lines(folder / METRICS)
    read_study(folder)
    study = (folder / STUDY).read_text(encoding="utf-8")
    return FinishedRun(report, metrics, study, read_card(folder), read_importances(folder))


def read_report(folder: Path) -> Report:
    """`report.json` alone; raises as `read_run`."""
    if not folder.is_dir():
        raise InputFault(folder, "is no folder", "name the run directory of a study, as runs/demo")
    path = folder / REPORT
    if not path.is_file():
        state = "the study there has not finished" if (folder / STUDY).is_file() else "no study was run there"
        raise InputFault(folder, f"holds no {REPORT}: {state}", "name the run directory of a finished study")
    content = read_json(path)
    if not isinstance(content, dict) or "kind" in content or not isinstance(content.get("format"), int):
        raise InputFault(path, "is no report of a federated study", "name the run directory of one")
    if content["format"] != FORMAT:
        age = "an older" if content["format"] < FORMAT else "a newer"
        raise InputFault(
            path,
            f"was written by {age} version (format {content['format']}; this version reads {FORMAT})",
            "show it with the version that is named under `versions` in it",
        )
    return parse(Report, content, path)


def read_study(folder: Path) -> dict[str, Any]:
    """The study file as run, as plain content: any version's; raises as `read_run`."""
    return load_yaml(folder / STUDY)
