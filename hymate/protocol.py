"""What coordinator and site say to each other of training, as typed records.

All that `client` and `server` share: this module, `joining_protocol` before any training, `scoring_protocol`
and `score_reports` for how models do, `secure_protocol` for sums in secret. A record travels as one JSON
string inside a Flower message (`strategies.wire` does the packing); model weights travel beside it as arrays.
Nothing in any of them holds a patient's row, identifier or score.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from hymate.config import FinetuneConfig, Frozen, ModelConfig, PretrainConfig, TaskConfig
from hymate.privacy_config import Clipping, PrivacyConfig
from hymate.score_reports import Detail, ScoreReport
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


class Refusal(Frozen):
    """A site declines: it names itself and the reason, in one line a person can act on."""

    site: str
    reason: str


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


class AloneRequest(Training):
    """Train on this site's stays only, from the study's first weights; report on `held_out`."""

    pretrain: PretrainConfig
    finetune: FinetuneConfig
    detail: Detail | None = None
    share: bool = False
    """Send the model too, for the other sites to score; only where the site's policy allows it."""


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
