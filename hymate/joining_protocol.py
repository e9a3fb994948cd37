"""What coordinator and site say to each other before any training: what it holds, its codes, its store."""

from __future__ import annotations

from pydantic import Field

from hymate.config import Frozen, MappedCode, Positive, RangeConfig, TaskConfig


class NoisyCounts(Frozen):
    """That counts and statistics are asked for with noise, charged to the site's ledger."""

    study: str
    """For which the ledger enters them."""
    noise_multiplier: Positive
    codes: dict[str, RangeConfig]
    """The only codes that statistics are asked of; ranges agreed without a look at data, or none."""


class DescribeRequest(Frozen):
    task: TaskConfig
    noisy: NoisyCounts | None = None


class SplitCounts(Frozen):
    """Stays of one split. Counts below the site's minimum are None."""

    stays: int | None
    positives: int | None


class SiteDescription(Frozen):
    site: str
    dataset: str
    splits: dict[str, SplitCounts]
    left_out: dict[str, int]
    """Stays that cannot be used, by reason; reasons with a count below the minimum are not sent."""
    versions: dict[str, str]


class StatisticsRequest(Frozen):
    task: TaskConfig
    mapping: tuple[MappedCode, ...] = ()
    """What the study calls local codes: a site's statistics are of shared codes."""
    noisy: NoisyCounts | None = None


class StatisticsReply(Frozen):
    site: str
    statistics: str
    """`hymate.data.statistics.SiteStatistics` as JSON, small cells left out."""


class PrepareRequest(Frozen):
    task: TaskConfig
    vocabulary: str
    """`hymate.data.vocabulary.Vocabulary` as JSON."""
    vocabulary_hash: str
    noisy: NoisyCounts | None = None
    """Then nothing is told of the store: it would be counted without noise."""


class PrepareReply(Frozen):
    site: str
    vocabulary_hash: str
    unknown_codes: int | None
    """Codes of the site that the vocabulary does not hold; None where they are of too few people."""
    triplets: int | None = None
    """Observations in the store; None where they are of too few people."""
    unknown_triplets: int | None = None
    """Observations left out for want of a code; None where they are of too few people."""
    outside: dict[str, int] = Field(default_factory=dict)
    """Values out of their code's plausible range; codes where they are of too few people are not sent."""
    seconds: float
