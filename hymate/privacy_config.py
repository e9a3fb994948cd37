"""The study's `privacy:` section: who adds noise, how much, and what is bounded for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from hymate.frozen import Frozen, Positive
from hymate.training_config import FinetuneConfig

Clipping = Literal["flat", "per_layer", "adaptive", "ghost"]


class PrivacyConfig(Frozen):
    """Differential privacy of local training (DP-SGD: Abadi et al. 2016, arXiv 1607.00133).

    The unit is the patient: epsilon bounds what the study's weights tell of whether any one patient's
    record was at a site, whatever else is known.
    """

    mode: Literal["none", "dp-sgd"] = "none"
    """`dp-sgd`: every step of every site's training is clipped and noised, in both phases."""
    noise_multiplier: Positive | None = None
    """Standard deviation of a step's noise over `max_grad_norm`. This or `target_epsilon`."""
    target_epsilon: Positive | None = None
    """Of the whole study at each site, pretraining and fine-tuning over all planned rounds: the noise is
    then what the site's own sampling rate and steps need."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-5
    """Far below one over the number of a site's patients."""
    max_grad_norm: Positive = 1.0
    """Norm to which each patient's gradient is scaled down before it is added, in place of `clip_norm`."""
    clipping: Clipping = "flat"
    """`flat`: a patient's whole gradient at once. `per_layer`: each parameter's by its own, all with the same
    share of the norm. `adaptive`: as flat, but the norm follows the median, under noise (Andrew et al.,
    arXiv 1905.03871). `ghost`: as flat, in two passes that never hold the gradients of several patients,
    for vocabularies whose tables are large."""
    dp_statistics: bool = False
    """Sites describe their data, tell statistics of codes, and say how a model does on their stays with noise
    too, and charge it. Codes are then those of `vocabulary.plausible.codes`."""
    statistics_noise: Positive = 4.0
    """Noise multiplier of description and statistics, each."""
    evaluation_noise: Positive = 4.0
    """Noise multiplier of each report: one of the tuning stays for every round of fine-tuning and one more
    after the last, and one of the held-out stays."""

    @model_validator(mode="after")
    def _one_measure_of_noise(self) -> PrivacyConfig:
        given = [name for name in ("noise_multiplier", "target_epsilon") if getattr(self, name) is not None]
        if self.mode == "none" and given:
            raise ValueError(f"privacy.{given[0]} is for mode dp-sgd, and mode is none: nothing is noised")
        if self.mode == "dp-sgd":
            _demand_one(given)
        elif self.dp_statistics:
            raise ValueError("privacy.dp_statistics is for mode dp-sgd, and mode is none")
        return self

    def demand_soundness(self, finetune: FinetuneConfig) -> None:
        """`ValueError` for what makes one patient's loss depend on others', past any clipping."""
        if self.mode == "dp-sgd" and finetune.label_smoothing:
            raise ValueError(
                "finetune.label_smoothing moves labels towards their mean over a site's patients, which no "
                "clipping bounds; set it to 0 under privacy.mode dp-sgd"
            )


class CentralPrivacyConfig(Frozen):
    """Noise that the coordinator adds to the mean of the updates (McMahan et al. 2018, arXiv 1710.06963).

    The unit is the site: epsilon bounds what the models that the coordinator gives away tell of whether a
    site's updates were in them. The coordinator itself sees every update as it is.
    """

    mode: Literal["central"]
    noise_multiplier: Positive | None = None
    """Standard deviation of the noise on the sum of updates over their norm. This or `target_epsilon`."""
    target_epsilon: Positive | None = None
    """Of a site that takes part in every planned round of both phases."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-2
    """Below one over the number of sites: with few of them no small one means much."""
    clipping: Literal["fixed", "adaptive"] = "fixed"
    """`adaptive`: the norm follows a quantile of the updates' lengths, under noise (Andrew et al., arXiv
    1905.03871)."""
    clipping_norm: Positive = 1.0
    """Length to which a site's update is scaled down, all arrays together; where clipping is adaptive, that
    of the first round."""
    quantile: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of updates that adaptive clipping leaves as they are."""

    @model_validator(mode="after")
    def _one_measure_of_noise(self) -> CentralPrivacyConfig:
        _demand_one(
            [name for name in ("noise_multiplier", "target_epsilon") if getattr(self, name) is not None]
        )
        return self

    def demand_soundness(self, finetune: FinetuneConfig) -> None:
        """Whatever a site trains, its update is one."""


def _demand_one(given: Sequence[str]) -> None:
    if len(given) != 1:
        raise ValueError("privacy needs noise_multiplier or target_epsilon, one of the two")


def _mode(content: Any) -> str:
    found = content.get("mode") if isinstance(content, dict) else getattr(content, "mode", None)
    return "central" if found == "central" else "at the sites"


StudyPrivacy: TypeAlias = Annotated[
    Annotated[PrivacyConfig, Tag("at the sites")] | Annotated[CentralPrivacyConfig, Tag("central")],
    Discriminator(_mode),
]
"""A field of this type reads `{mode: central, ...}`, and any other mode as a `PrivacyConfig`."""
