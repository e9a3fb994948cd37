"""The training file: one YAML that says what `hymate train` learns, from what, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from hymate.config import (
    Count,
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
from hymate.errors import InputFault
from hymate.model.config import AnyModelConfig
from hymate.overrides import apply_overrides
from hymate.train.demands import demand_parts

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Split = Literal["train", "tuning", "held_out"]


class TrainEvaluationConfig(Frozen):
    """What the trained model is measured on."""

    splits: tuple[Split, ...] = ("held_out",)
    """Splits whose labelled stays are scored at the end."""
    bootstrap: Annotated[int, Field(ge=0)] = 1000
    """Resamples of subjects behind the intervals; 0: no intervals."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    forecasts: bool = True
    """Measure the forecasts on tuning stays after every round of pretraining."""


class TrainConfig(Frozen):
    """One training without a federation. Every key has a default but `name`; a round is a round of
    `local_epochs` epochs."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    data: tuple[Path, ...] = ()
    """Folders of MEDS data sets, pooled; relative paths start at this file. `--data` goes before it."""
    pretrained: Path | None = None
    """An earlier run whose pretrained weights are fine-tuned; `pretrain` then is not used."""
    task: TaskConfig = TaskConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    model: AnyModelConfig = ModelConfig()
    """HyMaTE, or with `name` a baseline."""
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    fit_on: tuple[Literal["train", "tuning"], ...] = ("train",)
    """Splits that are learned from. With tuning, nothing stops early and the last round is kept: for
    settings that were found without it. The vocabulary's scaling is the training split's either way."""
    label_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the training subjects whose labels are used, drawn by `seed`; pretraining still sees all."""
    evaluation: TrainEvaluationConfig = TrainEvaluationConfig()
    ensemble: Count = 1
    """Members, of seeds `seed`, `seed` + 1, ...: what the model says is the mean of what they say."""
    ensemble_pretraining: Literal["shared", "own"] = "shared"
    """Whether the first member's pretrained weights are fine-tuned by all, or each pretrains its own."""

    @model_validator(mode="after")
    def _parts_are_there(self) -> TrainConfig:
        demand_parts(self.model, self.task, self.pretrain, self.finetune)
        if "train" not in self.fit_on:
            raise ValueError("fit_on lacks train: give [train], or [train, tuning]")
        if "tuning" in self.fit_on and "tuning" in self.evaluation.splits:
            raise ValueError("evaluation.splits names tuning, which fit_on learns from: take it out of one")
        return self


def load_train_config(
    path: Path,
    overrides: tuple[str, ...] = (),
    *,
    data: tuple[Path, ...] = (),
    pretrained: Path | None = None,
) -> TrainConfig:
    """Read and check a training file; paths in it come back whole,
    and the lines of a mapping file in place of its name.

    `overrides` are 'key.sub=value' as given on a command line; `data` and `pretrained`, where given,
    stand before what the file says. Raises `InputFault` naming file and key.
    """
    content = load_yaml(path)
    apply_overrides(content, overrides)
    if isinstance(content.get("data"), str):
        content["data"] = [content["data"]]
    if "privacy" in content:
        raise InputFault(
            path,
            "key 'privacy' is for studies: `hymate train` adds no noise",
            "leave it out, or run a study of one site with hymate-simulate",
        )
    config = parse(TrainConfig, content, path)
    folder = path.resolve().parent
    found = tuple(each.resolve() for each in data) or tuple((folder / each).resolve() for each in config.data)
    if pretrained is None and config.pretrained is not None:
        pretrained = folder / config.pretrained
    if not found:
        raise InputFault(path, "no data is named", "give --data DIR, or the key 'data'")
    return config.model_copy(
        update={
            "data": found,
            "pretrained": None if pretrained is None else pretrained.resolve(),
            "vocabulary": with_mapping_lines(config.vocabulary, folder),
        }
    )


def dump_train_config(config: TrainConfig) -> str:
    """The configuration with every default written out, as YAML that reads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False)
