"""The study file: one YAML that says what is learned, how, and with whom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
import yaml
from pydantic import Field, model_validator

from hymate.config import (
    FinetuneConfig,
    Frozen,
    ModelConfig,
    PretrainConfig,
    TaskConfig,
    VocabularyConfig,
    load_yaml,
    parse,
)
from hymate.data.mapping import with_mapping_lines
from hymate.evaluation_config import EvaluationConfig
from hymate.joining_protocol import NoisyCounts
from hymate.model.hymate import build_model
from hymate.overrides import apply_overrides
from hymate.privacy_config import CentralPrivacyConfig, PrivacyConfig, StudyPrivacy
from hymate.secure_config import SecureAggregationConfig
from hymate.strategy_config import StrategyConfig
from hymate.train.demands import demand_parts, refuse_in_federation
from server.federation_config import FederationConfig
from server.participation import ParticipationConfig
from server.secure_demands import demand_sums_suffice
from server.simulation_config import Name, SimulationConfig
from strategies.local_layers import demand_layers, local_names
from strategies.registry import demand_mean, demand_sum, demand_under_noise, make_algorithm


class StudyStrategy(StrategyConfig):
    """The study's `strategy:` section: that of both phases, unless pretraining has another one."""

    pretrain: StrategyConfig | None = None
    """The whole strategy of pretraining, where it is not that of fine-tuning."""

    def of(self, phase: Literal["pretrain", "finetune"]) -> StrategyConfig:
        """The strategy of a phase, as sites are told of it.

        `local_layers_first` is for the label's layers: pretraining has it only if it says so itself.
        """
        if phase == "pretrain" and self.pretrain is not None:
            return self.pretrain
        own = {"pretrain", "local_layers_first"} if phase == "pretrain" else {"pretrain"}
        return StrategyConfig.model_validate(self.model_dump(exclude=own))


class StudyConfig(Frozen):
    """One study. Every key has a default but `name`."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    task: TaskConfig = TaskConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    strategy: StudyStrategy = StudyStrategy()
    privacy: StudyPrivacy = PrivacyConfig()
    secure_aggregation: SecureAggregationConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    participation: ParticipationConfig = ParticipationConfig()
    simulation: SimulationConfig | None = None
    federation: FederationConfig | None = None

    @model_validator(mode="after")
    def _one_boolean_label(self) -> StudyConfig:
        if self.task.kind != "binary":
            raise ValueError(
                f"task.kind {self.task.kind} is for `hymate train`; a federation learns binary ones"
            )
        return self

    @model_validator(mode="after")
    def _training_is_a_federation_s(self) -> StudyConfig:
        demand_parts(self.model, self.task, self.pretrain, self.finetune)
        refuse_in_federation(self.pretrain, self.finetune)
        epochs = {"finetune": self.finetune.local_epochs}
        if self.pretrain.rounds:
            epochs["pretrain"] = self.pretrain.local_epochs
        demand_layers(
            {"pretrain": self.strategy.of("pretrain"), "finetune": self.strategy.of("finetune")}, epochs
        )
        return self

    @property
    def sums_reports(self) -> bool:
        """Whether no site's figures are known, but those of all together."""
        return self.secure_aggregation is not None and self.secure_aggregation.histograms

    @model_validator(mode="after")
    def _sums_suffice(self) -> StudyConfig:
        if self.secure_aggregation is not None:
            demand_sums_suffice(self.secure_aggregation, self)
        return self

    @property
    def noisy_counts(self) -> NoisyCounts | None:
        """How sites are asked for counts and statistics, where noise covers these."""
        privacy = self.privacy
        if isinstance(privacy, CentralPrivacyConfig) or not privacy.dp_statistics:
            return None
        codes = self.vocabulary.plausible.codes
        return NoisyCounts(study=self.name, noise_multiplier=privacy.statistics_noise, codes=codes)

    @property
    def evaluation_noise(self) -> float | None:
        """Multiplier of the noise on figures of evaluation; None: they are told as they are."""
        privacy = self.privacy
        if isinstance(privacy, CentralPrivacyConfig) or not privacy.dp_statistics:
            return None
        return privacy.evaluation_noise

    @property
    def tells_sums_of_rows(self) -> bool:
        """Whether a site may tell what follows from its single scores: neither hidden in a sum nor noised."""
        return not self.sums_reports and self.evaluation_noise is None

    @model_validator(mode="after")
    def _noisy_statistics_need_no_look(self) -> StudyConfig:
        if self.noisy_counts is None:
            return self
        codes = self.noisy_counts.codes
        half = sorted(code for code, bounds in codes.items() if (bounds.low is None) != (bounds.high is None))
        if half or not codes:
            what = f"gives '{half[0]}' one end of a range" if half else "lists no code"
            raise ValueError(
                f"vocabulary.plausible.codes {what}, and privacy.dp_statistics takes codes and ranges from "
                "there: give both ends, or none for a code without numbers"
            )
        if self.vocabulary.scaling != "standard":
            raise ValueError(
                f"vocabulary.scaling {self.vocabulary.scaling} needs quantiles, which privacy.dp_statistics "
                "has none of: set it to standard"
            )
        return self

    @model_validator(mode="after")
    def _noise_covers_what_is_told(self) -> StudyConfig:
        self.privacy.demand_soundness(self.finetune)
        if self.privacy.mode == "dp-sgd" and self.evaluation.local_baseline:
            raise ValueError(
                "evaluation.local_baseline tells figures of models trained without noise; "
                "set it to false under privacy.mode dp-sgd"
            )
        if self.evaluation_noise is not None and self.evaluation.pooled_baseline:
            raise ValueError(
                "evaluation.pooled_baseline tells figures of a model trained without noise; "
                "set it to false under privacy.dp_statistics"
            )
        return self

    @model_validator(mode="after")
    def _other_models_can_be_made(self) -> StudyConfig:
        asked = self.evaluation
        if asked.pooled_baseline and self.simulation is None:
            raise ValueError(
                "evaluation.pooled_baseline needs all stays at one place: only a simulation can have it"
            )
        if asked.leave_one_site_out and self.strategy.of("finetune").local_layers:
            raise ValueError(
                "evaluation.leave_one_site_out: strategy.local_layers leaves no whole model for a site that "
                "took no part; leave one of the two out"
            )
        if asked.leave_one_site_out and self.privacy.mode != "none":
            raise ValueError(
                "evaluation.leave_one_site_out trains anew without each site, and every training costs "
                f"privacy again; set it to false under privacy.mode {self.privacy.mode}"
            )
        return self


def load_study(path: Path, overrides: tuple[str, ...] = ()) -> StudyConfig:
    """Read and check a study file; `overrides` are 'key.sub=value' as given on a command line."""
    content = load_yaml(path)
    apply_overrides(content, overrides)
    study = _with_mapping(_with_whole_paths(parse(StudyConfig, content, path), path), path)
    for phase in ("pretrain", "finetune"):
        make_algorithm(study.strategy.of(phase), str(path))  # an unknown name or key ends here
        if study.privacy.mode == "dp-sgd":
            demand_under_noise(study.strategy.of(phase), str(path))
        if study.secure_aggregation is not None:
            demand_sum(study.strategy.of(phase), str(path))
        if isinstance(study.privacy, CentralPrivacyConfig):
            demand_mean(study.strategy.of(phase), str(path))
        if layers := study.strategy.of(phase).local_layers:
            local_names(layers, _parameters(study), str(path))
    return study


def _parameters(study: StudyConfig) -> list[str]:
    """Names of the weights of the study's model; they do not depend on the vocabulary."""
    with torch.device("meta"):  # nothing but names
        model = build_model(study.model, 1, 1, study.task.lookback_hours, study.seed)
    return list(model.state_dict())


def _with_whole_paths(study: StudyConfig, source: Path) -> StudyConfig:
    """The study's data sets, keys and certificates named so that they are found from anywhere."""
    folder = source.resolve().parent
    changed: dict[str, Frozen] = {}
    simulation = study.simulation
    if simulation is not None:
        changed["simulation"] = simulation.with_paths(lambda path: folder / path.expanduser())
    if study.federation is not None:
        changed["federation"] = study.federation.with_paths(lambda path: folder / path.expanduser())
    return study.model_copy(update=changed)


def _with_mapping(study: StudyConfig, source: Path) -> StudyConfig:
    """The study with the lines of its mapping file in place of the file's name."""
    vocabulary = with_mapping_lines(study.vocabulary, source.resolve().parent)
    return study.model_copy(update={"vocabulary": vocabulary})


def dump_study(study: StudyConfig) -> str:
    """The study with every default written out, as YAML that `load_study` reads back equal."""
    return yaml.safe_dump(study.model_dump(mode="json", exclude_none=True), sort_keys=False)
