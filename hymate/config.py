"""What a person may set about task, model and training, parsed once into frozen objects.

Every model forbids unknown keys and cross-checks its fields; `hymate.parsing` reads them from a file.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

# Read from here by all: `config` is where one looks for what can be set.
from hymate.frozen import Count as Count  # noqa: PLC0414
from hymate.frozen import Frozen as Frozen  # noqa: PLC0414
from hymate.frozen import LabelSet as LabelSet  # noqa: PLC0414
from hymate.frozen import Positive as Positive  # noqa: PLC0414
from hymate.frozen import Probability as Probability  # noqa: PLC0414
from hymate.parsing import load_yaml as load_yaml  # noqa: PLC0414
from hymate.parsing import parse as parse  # noqa: PLC0414
from hymate.training_config import AuxiliaryConfig as AuxiliaryConfig  # noqa: PLC0414
from hymate.training_config import DistillationConfig as DistillationConfig  # noqa: PLC0414
from hymate.training_config import FinetuneConfig as FinetuneConfig  # noqa: PLC0414
from hymate.training_config import OptimiserConfig as OptimiserConfig  # noqa: PLC0414
from hymate.training_config import PretrainConfig as PretrainConfig  # noqa: PLC0414
from hymate.training_config import SoftLabelsConfig as SoftLabelsConfig  # noqa: PLC0414

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
    summary_width: Count = 32
    """Of the layer that reads a code's figures, shared by all codes."""
    summary_thresholds: Annotated[int, Field(ge=0)] = 0
    """Soft steps at which that layer also sees each figure, spread from -2 to 2; 0: the figures alone."""
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
