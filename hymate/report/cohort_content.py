"""What `report.json` holds of the sites' data and of the vocabulary they agreed on, typed."""

from __future__ import annotations

from hymate.report.figures_content import Content


class SplitCounts(Content):
    stays: int | None
    positives: int | None


class SiteCohort(Content):
    dataset: str
    splits: dict[str, SplitCounts]
    left_out: dict[str, int | None]
    """Why -> stays."""
    unknown_codes: int | None


class DroppedCode(Content):
    code: str
    reason: str


class Feature(Content):
    code: str
    static: bool
    unit: str
    count: int
    subjects: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None


class Coverage(Content):
    """Code -> site -> share of its people with the code; null: nobody, or too few to name."""

    dynamic: dict[str, dict[str, float | None]]
    static: dict[str, dict[str, float | None]]


class UnitUse(Content):
    unit: str
    converted: dict[str, str]
    undeclared: tuple[str, ...]


class UnusualCode(Content):
    """A site whose median lies far outside the others' values."""

    code: str
    site: str
    median: float
    others: float


class Encoding(Content):
    triplets: int | None
    unknown_codes: int | None
    unknown_triplets: int | None
    unknown_share: float | None
    outside: dict[str, int]


class AgreedVocabulary(Content):
    hash: str
    codes: int
    static: tuple[str, ...]
    dropped: tuple[DroppedCode, ...]
    scaling: str
    outside: str
    clip_z: float | None
    features: tuple[Feature, ...]
    coverage: Coverage
    units: dict[str, UnitUse]
    unusual: tuple[UnusualCode, ...]
    encoding: dict[str, Encoding]
