"""The section `generalisation` of `report.json`: elsewhere, side by side, and how hospitals differ."""

from __future__ import annotations

from hymate.evaluate.differences import Comparison
from hymate.evaluate.estimates import Estimate
from hymate.report.figures_content import Comparisons, Content, Described


class Models(Content):
    """Models side by side on the same held-out stays of each site."""

    kinds: dict[str, str]
    """Kind -> what it is, in the order to show."""
    sites: dict[str, dict[str, Described]]
    """Site -> kind -> figures."""
    gaps: dict[str, dict[str, str]]
    """Kind -> site -> why it has none."""
    mean: dict[str, dict[str, float | None] | tuple[str, ...]]
    """Kind -> plain mean of `auroc` and `auprc` over the sites that every kind has figures for (`sites`)."""


class PairedModels(Content):
    """AUROC of model `a` less that of `b`, on the same stays."""

    a: str
    b: str
    question: str
    sites: Comparisons
    mean: Comparison | None
    notes: dict[str, str]
    """Site -> why there is no comparison."""


class ModelComparisons(Content):
    pairs: tuple[PairedModels, ...]
    tests: int
    multiplicity: str


class FoldVocabulary(Content):
    """What of a left-out site's records the model cannot read."""

    hash: str
    codes: int
    unknown_codes: int | None
    unknown_share: float | None


class FoldRounds(Content):
    finetune: int
    best: int


class LeftOut(Content):
    """A model trained without a site, on that site."""

    held_out: Described | None = None
    all_stays: Described | None = None
    """Every labelled stay of the site: none was seen by this model."""
    vocabulary: FoldVocabulary | None = None
    rounds: FoldRounds | None = None
    trained_on: tuple[str, ...] = ()
    seconds: float | None = None
    gap: str = ""
    """Why there are no figures."""


class Matrix(Content):
    """Each site's own model on each site's held-out stays."""

    models: tuple[str, ...]
    sites: tuple[str, ...]
    cells: dict[str, dict[str, Described]]
    """Whose model -> on whose stays -> figures."""
    gaps: dict[str, str]
    """Whose model is missing elsewhere -> why."""


class LabelRate(Content):
    n: int | None
    positives: int | None
    rate: Estimate | None
    difference: Comparison | None
    """Less the rate of all other sites."""
    note: str


class CodeCoverage(Content):
    """How much of the vocabulary a site's training stays have."""

    codes: int
    of: int
    share: float
    missing: tuple[str, ...]


class CodeDrift(Content):
    """One code at one site against all other sites merged."""

    code: str
    static: bool
    unit: str
    mean: float | None
    others_mean: float | None
    smd: Estimate | None
    """Standardised difference ..."""
    smd_of: str | None
    """... of what: values, or share of people."""
    per_stay: float | None
    """Occurrences per stay."""
    others_per_stay: float | None
    rate_ratio: float | None
    """Occurrences per stay, over the others'."""
    share: float | None
    """Of people who have the code."""
    others_share: float | None


class DriftSummary(Content):
    compared: int
    large: int
    """Codes with |smd| >= 0.2."""
    largest: tuple[str, ...]


class Drift(Content):
    label_rate: LabelRate
    coverage: CodeCoverage
    codes: tuple[CodeDrift, ...]
    summary: DriftSummary


class Generalisation(Content):
    """Parts that the study did not ask for are null."""

    confidence: float
    models: Models
    comparisons: ModelComparisons | None = None
    leave_one_site_out: dict[str, LeftOut] | None = None
    matrix: Matrix | None = None
    drift: dict[str, Drift]
