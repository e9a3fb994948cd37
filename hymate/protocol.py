"""What coordinator and site say to each other, as typed records.

This module is all that `client` and `server` share. A record travels as one JSON string inside a
Flower message (`strategies.wire` does the packing); model weights travel beside it as arrays.
Nothing here holds a patient's row, identifier or score.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hymate.config import FinetuneConfig, Frozen, MappedCode, ModelConfig, PretrainConfig, TaskConfig
from hymate.evaluate.histograms import ScoreCells


class Action(StrEnum):
    """Flower message types: category and name of what a site is asked to do."""

    DESCRIBE = "query.describe"
    STATISTICS = "query.statistics"
    PREPARE = "query.prepare"
    PRETRAIN = "train.pretrain"
    FINETUNE = "train.finetune"
    ALONE = "train.alone"
    EVALUATE = "evaluate.score"


class Refusal(Frozen):
    """A site declines: it names itself and the reason, in one line a person can act on."""

    site: str
    reason: str


class StrategyConfig(BaseModel):
    """The federated algorithm, and what it may be told; its own settings are extra keys."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str = "fedavg"
    optimiser_state: Literal["keep", "reset"] = "keep"
    """What happens to a site's AdamW moments between rounds."""

    @property
    def settings(self) -> dict[str, Any]:
        """The algorithm's own keys, validated by `strategies.registry.make_algorithm`."""
        return dict(self.model_extra or {})


class DescribeRequest(Frozen):
    task: TaskConfig


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


class StatisticsReply(Frozen):
    site: str
    statistics: str
    """`hymate.data.statistics.SiteStatistics` as JSON, small cells left out."""


class PrepareRequest(Frozen):
    task: TaskConfig
    vocabulary: str
    """`hymate.data.vocabulary.Vocabulary` as JSON."""
    vocabulary_hash: str


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


class Training(Frozen):
    """What every message that trains or scores a model carries."""

    study: str
    """Name of the study: what the site remembers between rounds is kept under it ..."""
    run: str = ""
    """... and under this run of it, so that a study begun anew finds nothing of the one before."""
    task: TaskConfig
    model: ModelConfig
    vocabulary_hash: str
    seed: int


class PretrainRequest(Training):
    round: int
    """1-based; the site trains epochs (round - 1) * local_epochs + 1 ... round * local_epochs."""
    pretrain: PretrainConfig
    strategy: StrategyConfig


class FinetuneRequest(Training):
    round: int
    finetune: FinetuneConfig
    positive_weight: float
    """Negatives per positive over all sites' training stays."""
    strategy: StrategyConfig


class AloneRequest(Training):
    """Train on this site's stays only, from the study's first weights; report on `held_out`."""

    pretrain: PretrainConfig
    finetune: FinetuneConfig


class EvaluateRequest(Training):
    split: Literal["tuning", "held_out"]
    batch_size: int = 64


class Cells(Frozen):
    """`hymate.evaluate.histograms.ScoreCells` on the wire."""

    low: list[int]
    high: list[int]
    positives: list[int]
    negatives: list[int]

    @classmethod
    def of(cls, cells: ScoreCells) -> Cells:
        return cls(
            low=cells.low.tolist(),
            high=cells.high.tolist(),
            positives=cells.positives.tolist(),
            negatives=cells.negatives.tolist(),
        )

    def arrays(self) -> ScoreCells:
        return ScoreCells(
            *(
                np.array(part, dtype=np.int64)
                for part in (self.low, self.high, self.positives, self.negatives)
            )
        )


class ScoreReport(Frozen):
    """How well a model does on one split of one site, without any patient's score."""

    n: int | None
    """Labelled stays of the split; None where they are fewer than the site's minimum."""
    positives: int | None
    """None where positives or negatives are fewer than the site's minimum: then no figure is sent."""
    auroc: float | None = None
    """Exact, computed at the site; None where a class is missing or too small."""
    auprc: float | None = None
    """Average precision, exact, computed at the site."""
    log_loss_sum: float | None = None
    squared_error_sum: float | None = None
    cells: Cells | None = None


class TrainReply(Frozen):
    """One site's round: the weights travel beside it as arrays."""

    site: str
    stays: int
    """Stays the site trained on in one epoch: its weight under FedAvg."""
    loss: float
    steps: int
    seconds: float
    received: ScoreReport | None = None
    """Fine-tuning: the weights *received* this round, scored on tuning before training began."""
    received_error: float | None = None
    """Pretraining: forecast error of the received weights on tuning, mean over stays."""


class AloneReply(Frozen):
    site: str
    held_out: ScoreReport
    pretrain_epochs: int
    finetune_epochs: int
    best_epoch: int
    seconds: float


class EvaluateReply(Frozen):
    site: str
    split: str
    report: ScoreReport
