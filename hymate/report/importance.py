"""What the sites explained of the study's model: global importances that lie in its run directory."""

from __future__ import annotations

from pathlib import Path

from hymate.config import parse
from hymate.errors import InputFault
from hymate.report.figures_content import Content
from hymate.report.json_files import read_json

FOLDER = "explanations"


class Interval(Content):
    value: float | None
    lower: float | None
    upper: float | None


class FeatureImportance(Content):
    title: str
    importance: Interval
    by_time: tuple[float | None, ...] = ()
    """Null: too few subjects."""


class Importance(Content):
    """`explanation.json` of `hymate explain --global`."""

    task: str
    unit: str
    split: str
    subjects: int
    stays: int
    min_cell: int
    edges: tuple[float, ...]
    """Hours."""
    features: tuple[FeatureImportance, ...]

    @property
    def most(self) -> float:
        """The largest importance."""
        return max((each.importance.value or 0.0 for each in self.features), default=0.0)

    @property
    def most_in_time(self) -> float:
        """The largest of all intervals."""
        return max((cell or 0.0 for each in self.features for cell in each.by_time), default=0.0)


def read_importances(run: Path) -> dict[str, Importance]:
    """By site, from `explanations/SITE/explanation.json` of the run directory.

    Raises:
        InputFault: one of them is no global explanation; that of a single stay is a patient's record and
            belongs into no report.
    """
    return {path.parent.name: _read(path) for path in sorted((run / FOLDER).glob("*/explanation.json"))}


def _read(path: Path) -> Importance:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputFault(path, "is no explanation", "write it anew with hymate explain --global")
    if "subject_id" in content:
        raise InputFault(
            path,
            "explains a single patient's stay, which belongs into no report",
            "delete it here; the report takes what `hymate explain --global` writes",
        )
    return parse(Importance, content, path)
