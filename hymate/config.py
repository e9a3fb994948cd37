"""What a person may set about task, model and training, parsed once into frozen objects.

Every model forbids unknown keys and cross-checks its fields; `hymate.parsing` reads them from a file.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from hymate.parsing import load_yaml as load_yaml  # noqa: PLC0414  (read from here by all)
from hymate.parsing import parse as parse  # noqa: PLC0414

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Frozen(BaseModel):
    """Base of every configuration: immutable, no unknown keys, fields described for `--help` and docs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


LabelSet = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,99}$")]
"""A folder's name: a site makes folders after it, so it may not lead out of one."""

LIFETIME_HOURS = 150 * 365.25 * 24.0


class TaskConfig(Frozen):
    """Which label is learned, which stays of a subject count, and which observations the model may see.

    A stay is one row of the label set: a subject and a prediction time.
    """

    name: LabelSet = "in_hospital_mortality"
    """Label set below `labels/` of each site's MEDS data set; `boolean_value` is learned."""
    kind: Literal["binary", "multilabel", "regression"] = "binary"
    """One boolean label; several (`names`), each of which a stay may lack; or a number (`float_value`)."""
    names: tuple[LabelSet, ...] = ()
    """Label sets learned together where `kind` is multilabel; a stay of any of them is a stay."""
    lookback_hours: Annotated[float, Field(gt=0.0, le=LIFETIME_HOURS)] = 48.0
    """Observations in [prediction_time - lookback_hours, prediction_time] are the input, both ends
    included, to the microsecond. Days and years are hours too: two years are 17,520."""
    min_observations: Annotated[int, Field(ge=0)] = 1
    """A stay with fewer observations in its window is left out, and counted."""
    max_observations: Count = 880
    """This many observations of a window are kept at most (STraTS keeps 880)."""
    keep: Literal["latest", "earliest"] = "latest"
    """Which ones, where a window holds more."""
    stays_per_subject: Literal["all", "first", "last"] | Count = "all"
    """Which stays of a subject are used, by prediction time, of those with enough observations; a
    number: the first that many. The others are left out, and counted."""

    @model_validator(mode="after")
    def _names_are_for_multilabel(self) -> TaskConfig:
        if self.kind != "multilabel" and self.names:
            raise ValueError(f"names are for kind multilabel, and kind is {self.kind}")
        if self.kind == "multilabel" and len(set(self.names)) != max(2, len(self.names)):
            raise ValueError("kind multilabel needs two or more different names")
        return self

    @property
    def label_sets(self) -> tuple[str, ...]:
        """All label sets that are learned."""
        return self.names or (self.name,)

    @property
    def key(self) -> str:
        """The name and a hash of every field: names what a site keeps for this task and no other."""
        return f"{self.name}-{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]}"


class Conversion(Frozen):
    """value * factor + offset: from one unit to another."""

    factor: float = 1.0
    offset: float = 0.0

    @model_validator(mode="after")
    def _can_be_undone(self) -> Conversion:
        if not math.isfinite(self.factor) or not math.isfinite(self.offset) or self.factor == 0.0:
            raise ValueError("a conversion needs a finite factor other than 0, and a finite offset")
        return self


class UnitRule(Frozen):
    """The unit of one shared code, and how other units become it."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    unit: str
    sources: dict[str, Conversion] = Field(default_factory=dict, alias="from")
    """Unit as a site declares it -> conversion to `unit`; spelling variants of a unit are one unit."""


class MappedCode(Conversion):
    """One line of a mapping file: what a local code is called in the study."""

    local: str
    shared: str
    site: str | None = None
    """The site whose code this is; None: every site. A site's own line goes before a general one."""
    unit: str | None = None
    """Unit after factor and offset; None: the local code's own unit, or, with a factor or an offset,
    that of the shared code."""

    @property
    def converts(self) -> bool:
        """Whether values change."""
        return self.factor != 1.0 or self.offset != 0.0


class RangeConfig(Frozen):
    """Bounds of one code's plausible values, in its shared unit; None: from the sites' quantiles."""

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _in_order(self) -> RangeConfig:
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self


class PlausibleConfig(Frozen):
    """Which values of a code are taken for measurements, and what becomes of the others.

    The range of a code is [quantile(low) - margin * w, quantile(high) + margin * w], where w is
    quantile(high) - quantile(low), over all sites' training windows: wide enough for rare disease,
    too narrow for a slipped decimal point.
    """

    low: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.001
    high: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.999
    margin: Annotated[float, Field(ge=0.0)] = 0.5
    outside: Literal["clip", "drop", "keep"] = "clip"
    """Move a value outside to the nearer bound, leave its observation out, or look for no ranges."""
    codes: dict[str, RangeConfig] = Field(default_factory=dict)
    """Bounds set by hand, by shared code."""


class VocabularyConfig(Frozen):
    """Which codes of the sites become features of the shared model, and how their values are scaled."""

    min_count: Count = 10
    """Occurrences over all sites' training windows below which a code is dropped."""
    min_sites: Count = 1
    """Sites that must have seen a code, or it is dropped."""
    mapping: Annotated[
        Annotated[Path, Tag("file")] | Annotated[tuple[MappedCode, ...], Tag("lines")],
        Discriminator(lambda given: "file" if isinstance(given, str | Path) else "lines"),
    ] = ()
    """File (CSV or YAML) of local codes and what they are called in the study; relative paths start at
    the study file. In a study as run, its lines stand here."""
    units: dict[str, UnitRule] = Field(default_factory=dict)
    """By shared code. Without a rule, sites that declare different units end the phase."""
    plausible: PlausibleConfig = PlausibleConfig()
    scaling: Literal["standard", "robust", "quantile"] = "standard"
    """(value - mean) / std; (value - median) / (interquartile range / 1.349); or the normal score of
    the value's quantile, linear between knots. A code too rare for quantiles is scaled by the first."""
    clip_z: Positive = 10.0
    """Scaled values beyond +-clip_z are set there: one slipped decimal point must not drown a batch."""


class ModelConfig(Frozen):
    """Size and parts of HyMaTE (arXiv 2509.24118, section 3)."""

    name: Literal["hymate"] = "hymate"
    """Other names mean baselines: `hymate.model.config`."""
    d_model: Count = 64
    mamba_blocks: Annotated[int, Field(ge=0)] = 2
    bidirectional: bool = False
    """Each Mamba block gets a second one that reads the stay from its last observation to its first."""
    d_state: Count = 16
    d_conv: Annotated[int, Field(ge=2, le=4)] = 4
    expand: Count = 2
    attention_layers: Annotated[int, Field(ge=0)] = 1
    attention_heads: Count = 4
    attention_window: Count | None = None
    """Observations that attention sees on each side of one's own; None: all. Given, time is linear in
    length."""
    pooling: Literal["fusion", "mean", "last"] = "fusion"
    """How a stay's observations become one vector: fusion attention, their mean, or the last of them."""
    static: bool = True
    """Whether the model sees the demographics."""
    d_static: Count = 16
    """Width of the demographics' embedding that is concatenated with the pooled sequence."""
    dropout: Probability = 0.2
    embedding: Literal["sum", "concat", "code_value"] = "sum"
    """A triplet as the sum of its feature's, value's and time's embedding; as these side by side, each with
    a third of d_model; or as one token of a table, for the code and the decile of the value, without time."""
    value_clip: Positive | None = None
    """z-scores beyond this count as this, at the model's entrance and as forecasting target; None: as
    they are (they reach 180 in PhysioNet-2012)."""
    event_head: bool = False
    """Also say which codes are measured next: what `pretrain.event_rate` trains."""
    value_embedding: Literal["shared", "affine"] = "shared"
    """How a value meets its code: e^v = FFN(v) for all codes, or gamma_f FFN(v) with gamma_f of the code."""
    d_summary: Annotated[int, Field(ge=0)] = 0
    """Width of the summary branch (each code's count, mean, extremes, trend) at classification; 0: none."""
    summary_windows: tuple[Count, ...] = (1,)
    """Equal parts of the look-back that are summarised: (1, 4) is the whole and its quarters."""
    summary_dropout: Probability = 0.4
    summary_input_dropout: Probability = 0.1

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelConfig:
        if self.d_model % self.attention_heads:
            raise ValueError(f"attention_heads {self.attention_heads} does not divide d_model {self.d_model}")
        return self

    @model_validator(mode="after")
    def _embedding_is_possible(self) -> ModelConfig:
        if self.embedding == "concat" and self.d_model < 3:
            raise ValueError(f"embedding concat needs d_model 3 or more, not {self.d_model}")
        if self.embedding == "code_value" and self.value_embedding == "affine":
            raise ValueError("embedding code_value has no value embedding that value_embedding could scale")
        return self


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

    def weight_of_positives(self, balanced: float) -> float:
        """How often a positive counts, where there are `balanced` negatives per positive."""
        if self.positive_weight == "balanced":
            return balanced
        return 1.0 if self.positive_weight == "none" else self.positive_weight
