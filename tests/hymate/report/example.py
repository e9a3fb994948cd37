"""The run directory of a whole synthetic study, and ways to change it.

`example_run/` was made by `hymate-simulate --config tests/hymate/report/example_study.yaml` and
`hymate explain --global`.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hymate.report.content import Report
from hymate.report.run_directory import FinishedRun, read_run

RUN = Path(__file__).parent / "example_run"
Change = Callable[[dict[str, Any]], None]


def content() -> dict[str, Any]:
    """What report.json holds, to change at will."""
    found: dict[str, Any] = json.loads((RUN / "report.json").read_text(encoding="utf-8"))
    return found


def changed(change: Change) -> FinishedRun:
    """The example with its report.json changed."""
    run = read_run(RUN)
    content_ = copy.deepcopy(content())
    change(content_)
    return FinishedRun(Report.model_validate(content_), run.metrics, run.study, run.card, run.importances)


def copied(folder: Path, change: Change = lambda content_: None) -> Path:
    """A run directory like the example's."""
    shutil.copytree(RUN, folder)
    content_ = content()
    change(content_)
    (folder / "report.json").write_text(json.dumps(content_), encoding="utf-8")
    return folder
