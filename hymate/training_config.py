"""What a person may set about training: each phase's optimiser, and what the phase itself does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from hymate.frozen import Count, Frozen, LabelSet, Positive, Probability


class OptimiserConfig(Frozen):
    """AdamW and what surrounds it in every phase."""

    learning_rate: Positive = 5e-4
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate: as it is, or down to 2 % of it along half a cosine over the phase's rounds."""
    warmup: Probability = 0.0
    """Share of the phase's steps over which the learning rate rises to its height."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    clip_norm: Positive = 0.3
    """Gradient norm above which a step is scaled down (the lineage's protocol: 0.3)."""
    batch_size: Count = 32
    ema: Probability = 0.0
    """Decay of the running mean of the weights, a step: 0.99 remembers some 100 steps. What is evaluated
    and kept is the mean; 0: the weights themselves."""


class PretrainConfig(OptimiserConfig):
    """Masked forecasting: see the record up to t1, forecast what is measured just after it."""

    rounds: Annotated[int, Field(ge=0)] = 10
    """Rounds of federated pretraining; 0 leaves the phase out."""
    local_epochs: Count = 1
    min_input_hours: Positive = 12.0
    """t1 is drawn among the stay's observation times from here on, the last one excluded."""
    forecast_hours: Positive = 2.0
    """The target is every variable's first value in (t1, t1 + forecast_hours]."""
    variable_dropout: Probability = 0.2
    """Share of a stay's variables hidden from the input, drawn anew at each visit."""
    windows_per_stay: Count = 1
    """Times t1 that are drawn of each stay in an epoch."""
    event_rate: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight, beside the values, of forecasting which variables are measured at all; needs
    `model.event_head`."""


class AuxiliaryConfig(Frozen):
    """Further label sets, learned beside the task by the same representation and forgotten afterwards."""

    tasks: Annotated[tuple[LabelSet, ...], Field(min_length=1)]
    """Label sets of the same stays, boolean or numbers; a stay may lack any. Numbers that are never
    negative are learned as log(1 + number); all in standard deviations of the training stays."""
    weight: Positive = 0.5
    """Of their mean loss, beside that of the task."""

    @model_validator(mode="after")
    def _each_once(self) -> AuxiliaryConfig:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks names a label set twice")
        return self


class SoftLabelsConfig(Frozen):
    """Distillation: labels of training stays are mixed with what another model says of them.

    That model never saw the stay: it is fitted on the other folds of the training stays.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    source: Literal["boosting"] = Field(default="boosting", alias="from")
    """Gradient boosting on summary features (`hymate.model.baselines.summary`)."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """What is learned is (1 - share) label + share probability."""
    folds: Annotated[int, Field(ge=2)] = 5


class DistillationConfig(Frozen):
    """After the rounds of fine-tuning: head and summary branch learn what teachers say of invented stays.

    The teachers are gradient boosting on the branch's own figures and the model as fine-tuning left it;
    what is learned is the mean of their log odds. Unlike a label, teachers can be asked about stays that
    never were, as many as one likes: an invented stay has the figures of some codes from another stay
    (`hymate.train.distillation`).
    """

    epochs: Count = 80
    """As many invented stays each as there are training stays."""
    exchanged: Probability = 0.3
    """Share of a stay's codes whose figures come from another stay, on average."""
    own: Probability = 0.5
    """Share of the model itself in the teachers' log odds; the rest is boosting's."""
    boosters: Count = 2
    """Fits of boosting, which differ in the figures they look at; their mean counts."""
    batch_size: Count = 256
    learning_rate: Positive = 2e-3
    dropout: Probability = 0.02
    """In the summary branch meanwhile: with so many stays there is little to over-fit."""


class FinetuneConfig(OptimiserConfig):
    """Supervised training of the task's label."""

    rounds: Count = 10
    local_epochs: Count = 1
    variable_dropout: Probability = 0.0
    span_dropout_hours: Annotated[float, Field(ge=0.0)] = 0.0
    """Of each stay visited, what was observed in a span of this length, drawn at random, is hidden."""
    patience: Count = 5
    """Rounds without a better tuning AUROC + average precision after which training stops."""
    encoder_rate: Positive = 1.0
    """Learning rate of the encoder, as a multiple of that of head, demographics and summary branch."""
    warm_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs, before the rounds, in which the encoder stays as it is and only head, demographics and
    summary branch learn; schedule, ema and the like are those given here."""
    warm_batch_size: Count = 128
    warm_learning_rate: Positive = 1e-3
    positive_weight: Literal["balanced", "none"] | Positive = "balanced"
    """How often a positive counts: as often as there are negatives per positive, once, or a number."""
    label_smoothing: Probability = 0.0
    """Share by which each label moves towards the training stays' mean label."""
    auxiliary: AuxiliaryConfig | None = None
    soft_labels: SoftLabelsConfig | None = None
    distillation: DistillationConfig | None = None

    def weight_of_positives(self, balanced: float) -> float:
        """How often a positive counts, where there are `balanced` negatives per positive."""
        if self.positive_weight == "balanced":
            return balanced
        return 1.0 if self.positive_weight == "none" else self.positive_weight
