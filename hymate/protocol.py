"""What coordinator and site say to each other, as typed records.

This module is all that `client` and `server` share. A record travels as one JSON string inside a
Flower message (`strategies.wire` does the packing); model weights travel beside it as arrays.
Nothing here holds a patient's row, identifier or score.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from hymate.config import (
    FinetuneConfig,
    Frozen,
    MappedCode,
    ModelConfig,
    Positive,
    PretrainConfig,
    RangeConfig,
    TaskConfig,
)
from hymate.evaluate.histograms import ScoreCells
from hymate.evaluation_config import AttributeConfig
from hymate.privacy_config import Clipping, PrivacyConfig
from hymate.secure_protocol import Masked
from hymate.strategy_config import StrategyConfig


class Action(StrEnum):
    """Flower message types: category and name of what a site is asked to do."""

    DESCRIBE = "query.describe"
    STATISTICS = "query.statistics"
    PREPARE = "query.prepare"
    PRETRAIN = "train.pretrain"
    FINETUNE = "train.finetune"
    ALONE = "train.alone"
    EVALUATE = "evaluate.score"
    RECALIBRATE = "evaluate.recalibrate"
    KEYS = "query.secure_keys"
    SHARES = "query.secure_shares"
    UNMASK = "query.secure_unmask"
    COMPARE = "evaluate.compare"


ModelKind = Literal["federated", "shared", "local", "left_out", "pooled"]
"""What a study ends with (under a personal strategy, each site's own version of it); the part that all sites
share, where that is another whole model; a site's own, trained on its stays alone; federated, without the
site; trained on all sites' stays at one place."""


class Refusal(Frozen):
    """A site declines: it names itself and the reason, in one line a person can act on."""

    site: str
    reason: str


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


class Training(Frozen):
    """What every message that trains or scores a model carries."""

    study: str
    """Name of the study: what the site remembers between rounds is kept under it ..."""
    run: str = ""
    """... and under this run of it, so that a study begun anew finds nothing of the one before."""
    left_out: str = ""
    """The site that takes no part in this training, where the study leaves each out in turn."""
    task: TaskConfig
    model: ModelConfig
    vocabulary_hash: str
    seed: int


class GoingOn(Training):
    """What a site is told that goes on from what it remembers of the study.

    It goes on from the last rounds in which its reply was made part of the model; 0: none. What came too
    late, or was refused, did not happen.
    """

    folded: int = 0
    """The last such round of this phase ..."""
    pretrained: int = 0
    """... and of pretraining."""
    secure: Masked | None = None
    """Where the answer is to be masked: it is a `MaskedReply` then."""


class NoisePlan(Frozen):
    """All training of a study that takes noise: for `target_epsilon` a site works out its noise from it."""

    pretrain: PretrainConfig
    finetune: FinetuneConfig
    trainings: dict[Literal["pretrain", "finetune"], int]
    """How often a site goes through a round's epochs: twice where it also trains a model of its own."""


class Declaration(Frozen):
    """What a site did to every step of a round, as it says; the study's own `privacy:` section, kept.

    Its noise for a `target_epsilon`, and its sampling rate, follow from the number of its patients: they are
    not told.
    """

    clipping: Clipping
    max_grad_norm: float
    """Where clipping is adaptive: that of the first step."""
    noise_multiplier: float | None
    target_epsilon: float | None
    delta: float

    @classmethod
    def of(cls, privacy: PrivacyConfig) -> Declaration | None:
        """What a site declares that did as it was asked; None for a round without noise."""
        if privacy.mode == "none":
            return None
        return cls(**privacy.model_dump(include=set(cls.model_fields)))


class Spent(Frozen):
    """What a study has cost a site's patients so far; only where the site's policy publishes it."""

    epsilon: float | None
    """None: without bound."""
    delta: float


class RoundRequest(GoingOn):
    """One round of training under a strategy."""

    round: int
    """1-based; the site trains epochs (round - 1) * local_epochs + 1 ... round * local_epochs."""
    strategy: StrategyConfig
    privacy: PrivacyConfig
    """No default: nobody asks for a round without noise by leaving a word out."""
    plan: NoisePlan | None = None
    """Where the round takes noise."""
    best_round: int = 0
    """The round the study would end with as things stand: what a site remembers of it is kept."""


class PretrainRequest(RoundRequest):
    pretrain: PretrainConfig


class FinetuneRequest(RoundRequest):
    finetune: FinetuneConfig
    positive_weight: float
    """Negatives per positive over all sites' training stays."""
    score: bool = True
    """Whether the reply reports on the weights received; not where all sites were asked for that before."""


class Detail(Frozen):
    """What all sites' figures have in common, agreed on their tuning stays."""

    edges: tuple[float, ...]
    """Where bins of score begin, ascending in (0, 1)."""
    threshold: float | None = None
    """The operating point: one of `edges`."""
    groups: tuple[AttributeConfig, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    """Names of attributes whose groups are also told together."""


class AloneRequest(Training):
    """Train on this site's stays only, from the study's first weights; report on `held_out`."""

    pretrain: PretrainConfig
    finetune: FinetuneConfig
    detail: Detail | None = None
    share: bool = False
    """Send the model too, for the other sites to score; only where the site's policy allows it."""


class KeptScores(Frozen):
    """Under which run and name a site keeps a model's scores of its held-out stays, for `CompareRequest`."""

    run: str
    kind: ModelKind


class EvaluateRequest(GoingOn):
    split: Literal["tuning", "held_out", "development"]
    """development: training and tuning stays together, of a site that was left out."""
    keep: KeptScores | None = None
    detail: Detail | None = None
    """None: no groups, and bins between `hymate.evaluate.edges.first_edges`."""
    batch_size: int = 64
    personal: StrategyConfig | None = None
    """Where sites have weights of their own: the strategy of fine-tuning, and ..."""
    round: int = 0
    """... the round of it whose weights are scored."""
    noise_multiplier: Positive | None = None
    """Of the noise on the figures, which the site charges first; None: they are wanted as they are."""


class RecalibrateRequest(EvaluateRequest):
    """Sums for one Newton step of the recalibration of the same stays under the same weights."""

    points: dict[str, list[tuple[float, float]]]
    """Group ("": all stays) -> (intercept, slope) at which sums are wanted."""


class CompareRequest(Frozen):
    """How pairs of models, whose scores the site has kept, differ on its held-out stays."""

    study: str
    run: str
    task: TaskConfig
    pairs: tuple[tuple[ModelKind, ModelKind], ...]


class Cells(Frozen):
    """`hymate.evaluate.histograms.ScoreCells` on the wire."""

    low: list[int]
    high: list[int]
    positives: list[int]
    negatives: list[int]
    score_sum: list[float] | None = None

    @classmethod
    def of(cls, cells: ScoreCells, *, sums: bool = False) -> Cells:
        return cls(
            low=cells.low.tolist(),
            high=cells.high.tolist(),
            positives=cells.positives.tolist(),
            negatives=cells.negatives.tolist(),
            score_sum=cells.score_sum.tolist() if sums and cells.score_sum is not None else None,
        )

    def arrays(self) -> ScoreCells:
        low, high, positives, negatives = (
            np.array(part, dtype=np.int64) for part in (self.low, self.high, self.positives, self.negatives)
        )
        sums = None if self.score_sum is None else np.array(self.score_sum, dtype=np.float64)
        return ScoreCells(low, high, positives, negatives, sums)


class OwnFit(Frozen):
    """A site's own recalibration: slope and calibration in the large, with standard errors; None: none."""

    slope: float | None = None
    level: float | None = None
    """The intercept that goes with the slope: where the pooled fit begins."""
    slope_error: float | None = None
    intercept: float | None = None
    intercept_error: float | None = None


class GroupReport(Frozen):
    """Figures of one group at one site; every count in it is 0 or at least the site's minimum."""

    n: int
    positives: int
    score_sum: float
    squared_error_sum: float
    squared_error_squares: float
    log_loss_sum: float
    log_loss_squares: float
    auroc: float | None = None
    """Exact; None where the group has one class only."""
    auroc_variance: float | None = None
    others_auroc: float | None = None
    """Of all other stays of the site; None where they have too few of a class."""
    others_variance: float | None = None
    own_fit: OwnFit | None = None
    cells: Cells
    deviation: float | None = None
    """As in `ScoreReport`."""


class ScoreReport(Frozen):
    """How well a model does on one split of one site, without any patient's score.

    With noise (`deviation`) it is of people instead of stays, and all of it is made of the noisy counts
    (`hymate.evaluate.noisy_cells`): no figure in it is exact.
    """

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
    auroc_variance: float | None = None
    """DeLong's, stays of one subject taken together. This and what follows: where `Detail` asked for it."""
    score_sum: float | None = None
    squared_error_squares: float | None = None
    """Sum of the stays' squared (score - label)^2: how sure the Brier score is."""
    log_loss_squares: float | None = None
    """The same of the log loss."""
    own_fit: OwnFit | None = None
    groups: dict[str, GroupReport] = Field(default_factory=dict)
    held_back: tuple[str, ...] = ()
    """Groups that the site has and does not tell, being small or giving away one that is."""
    deviation: float | None = None
    """Standard deviation of the noise on each class's number of people in each of the agreed cells; None:
    there is none."""


class TrainReply(Frozen):
    """One site's round: the weights travel beside it as arrays.

    A round with noise leaves out what noise does not cover: `stays`, `loss`, `steps`, `facts`.
    """

    site: str
    stays: int | None
    """Stays the site trained on in one epoch: its weight under FedAvg."""
    loss: float | None
    steps: int | None
    seconds: float
    """With noise, whole seconds."""
    noise: Declaration | None = None
    """None: the round was without noise."""
    spent: Spent | None = None
    received: ScoreReport | None = None
    """Fine-tuning: the weights *received* this round, scored on tuning before training began."""
    received_error: float | None = None
    """Pretraining: forecast error of the received weights on tuning, mean over stays."""
    facts: dict[str, float] = Field(default_factory=dict)
    """Numbers that the strategy's half at the site sends to its half at the coordinator."""


class MaskedReply(Frozen):
    """One site's part of a sum (`strategies.secure.contents`), which travels beside it as masked arrays."""

    site: str
    seconds: float
    """Of local training; with noise whole seconds."""
    noise: Declaration | None = None
    """As in `TrainReply`."""
    spent: Spent | None = None
    """As in `TrainReply`."""
    received: ScoreReport | None = None
    """As in `TrainReply`, where the study sums updates alone."""


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


class RecalibrateReply(Frozen):
    site: str
    sums: dict[str, list[tuple[float, float, float, float, float, float]]]
    """Per group asked about and told: log likelihood, gradient (2), information (3) at each point."""


class PairedDifference(Frozen):
    """AUROC of the first model less that of the second on the same stays, and DeLong's variance of it."""

    value: Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
    variance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class CompareReply(Frozen):
    site: str
    pairs: tuple[PairedDifference | None, ...]
    """In the order asked; None where the site has not scored both models, or a class is too small to name."""
