"""What `report.json` holds, typed: what is read to show it, and the source of its published schema."""

from __future__ import annotations

from typing import Any

from hymate.evaluate.differences import Comparison
from hymate.evaluate.estimates import Estimate
from hymate.evaluate.reliability import ReliabilityBin
from hymate.report.cohort_content import AgreedVocabulary, SiteCohort
from hymate.report.figures_content import Comparisons, Content, Described, Figures
from hymate.report.generalisation_content import Generalisation
from hymate.secure_config import SecureAggregationConfig

FORMAT = 2
"""Of report.json: higher where a reader of the one before would read it wrong."""


class SiteFigures(Content):
    """A site's held-out figures, exact, in short."""

    n: int | None
    """Stays; null: fewer than the site's minimum."""
    positives: int | None
    auroc: float | None
    auprc: float | None
    brier: float | None
    log_loss: float | None


class OwnModel(Content):
    """A site's own model, trained on its stays alone."""

    auroc: float | None
    auprc: float | None
    finetune_epochs: int
    best_epoch: int


class Pooled(Content):
    """Over all sites that told counts, with the interval proven to hold the exact value."""

    sites: int
    n: int
    positives: int
    auroc: float | None
    auroc_bounds: tuple[float, float] | None
    auprc: float | None
    auprc_bounds: tuple[float, float] | None
    brier: float | None
    log_loss: float | None


class MeanFigures(Content):
    auroc: float | None
    auprc: float | None


class Mean(Content):
    """Unweighted, over the sites that have the figure."""

    federated: MeanFigures
    local: MeanFigures | None


class OperatingPoint(Content):
    rule: dict[str, float | str]
    """What the study asked for: sensitivity, specificity, best or threshold."""
    threshold: float | None


class SitePerformance(Described):
    reliability: tuple[ReliabilityBin, ...] = ()
    """Predicted against observed, in tenths of predicted risk."""
    held_back: tuple[str, ...] = ()
    """Groups that the site did not tell."""
    deviation: float | None = None
    """Standard deviation of the noise on each class's number of people in each of the agreed cells; null:
    figures are without noise."""


class PooledPerformance(Described):
    reliability: tuple[ReliabilityBin, ...]
    sites: int
    recalibration_sites: int


class WithinSites(Content):
    """Pairs of patients of one site only."""

    auroc: Estimate | None
    sites: int


class AcrossSites(Content):
    """Random-effects mean of the sites' AUROCs, and where a new site like these would lie."""

    sites: int
    mean: float
    interval: tuple[float, float]
    prediction: tuple[float, float] | None
    tau2: float
    i2: float
    scale: str


class RandomEffects(Content):
    auroc: AcrossSites | None


class Performance(Content):
    confidence: float
    bins: int
    operating_point: OperatingPoint
    sites: dict[str, SitePerformance]
    within_site: WithinSites
    pooled: PooledPerformance
    random_effects: RandomEffects


class GroupFigures(Content):
    n: int
    positives: int
    sites: tuple[str, ...]
    recalibration_sites: int
    figures: Figures
    note: str
    across_sites: AcrossSites | None


class Gap(Content):
    """Between the groups where a figure is highest and lowest."""

    highest: str
    lowest: str
    difference: Comparison
    ratio: Comparison | None


class WithinGap(Content):
    """A group's AUROC less that of all others of the same site."""

    sites: dict[str, Estimate | None]
    mean: Estimate | None


class WithinGaps(Content):
    auroc: WithinGap


class Attribute(Content):
    groups: dict[str, GroupFigures]
    gaps: dict[str, Gap]
    against_others: dict[str, Comparisons]
    within_sites: dict[str, WithinGaps]
    held_back: dict[str, tuple[str, ...]]
    """Site -> groups that it did not tell."""


class Fairness(Content):
    min_group: int
    attributes: dict[str, Attribute]
    tests: int
    multiplicity: str


class Rounds(Content):
    pretrain: int
    finetune: int
    best: int
    """The round of fine-tuning whose weights were kept; 0: those before the first."""


class Trouble(Content):
    """A site that was missing in a round."""

    phase: str
    round: int | None
    site: str
    outcome: str
    reason: str | None


class Participation(Content):
    sites: dict[str, dict[str, float | None]]
    """Site -> outcome -> how often; `weight_share`: its share of the weight folded."""
    troubles: tuple[Trouble, ...]


class SpentBudget(Content):
    epsilon: float | None
    """Null: without bound."""
    delta: float


class SitePrivacy(Content):
    declared: dict[str, Any] | None
    """What the site says it did to its updates."""
    rounds: dict[str, int]
    """Phase -> updates with noise."""
    spent: SpentBudget | None
    """Null: its policy does not publish it."""


class Privacy(Content):
    mode: str
    noise_multiplier: float | None
    target_epsilon: float | None
    delta: float
    clipping: str
    max_grad_norm: float | None = None
    """Of a patient's gradient; null under mode central."""
    clipping_norm: float | None = None
    """Of a site's update, under mode central."""
    quantile: float | None = None
    """Of the updates' lengths, which adaptive clipping follows under mode central."""
    unit: str = "patient"
    """Of whom epsilon speaks: patient, or site under mode central."""
    dp_statistics: bool = False
    """Whether counts, statistics of codes and figures of evaluation are noised, too ..."""
    statistics_noise: float | None = None
    """... with this noise multiplier each; null under mode central ..."""
    evaluation_noise: float | None = None
    """... and figures with this one."""
    sites: dict[str, SitePrivacy]


class Report(Content):
    """`report.json` of a finished study."""

    format: int
    study: str
    seed: int
    task: str
    strategy: str
    personal: bool
    """Whether each site ends with its own version of the model."""
    split: str
    sites: dict[str, SiteFigures]
    local: dict[str, OwnModel]
    pooled: Pooled
    mean: Mean
    performance: Performance
    fairness: Fairness | None
    """Null: the study names no groups."""
    generalisation: Generalisation | None = None
    rounds: Rounds
    cohort: dict[str, SiteCohort]
    vocabulary: AgreedVocabulary
    participation: Participation
    privacy: Privacy | None
    """Null: updates without noise."""
    secure_aggregation: SecureAggregationConfig | None = None
    """Null: the coordinator saw each site's updates."""
    timings: dict[str, float]
    """Phase -> seconds; `total`."""
    versions: dict[str, str]
