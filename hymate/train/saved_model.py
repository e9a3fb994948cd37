"""A model on disk: weights, config and vocabulary, enough to predict with.

    FOLDER/weights.safetensors
    FOLDER/config.json          task, model, hash of the vocabulary
    FOLDER/vocabulary.json

A training run holds two, `model/` and `pretrained/`; a federated study's run directory one, `model/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from hymate.config import TaskConfig
from hymate.data.vocabulary import Vocabulary
from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.model.config import AnyModelConfig
from hymate.model.ensemble import Ensemble
from hymate.model.heads import ClassificationHead
from hymate.model.registry import build
from hymate.model.sequence_model import SequenceModel
from hymate.train.checkpoint import load_weights, save_weights

FORMAT = 1
MODEL = "model"
PRETRAINED = "pretrained"
SUMMARY = {
    "d_summary",
    "summary_windows",
    "summary_width",
    "summary_thresholds",
    "summary_dropout",
    "summary_input_dropout",
}
"""Keys of a model's configuration that a pretraining does not depend on."""
NOT_PRETRAINED = SUMMARY | {"dropout"}
"""Keys in which a model may differ from the pretrained one whose weights it begins with."""

_MODEL: TypeAdapter[Any] = TypeAdapter(AnyModelConfig)


@dataclass(frozen=True)
class Scale:
    """A prediction is mean + std x the model's output, in the label's unit."""

    mean: float
    std: float


@dataclass(frozen=True)
class SavedModel:
    """A model with what its numbers mean."""

    name: str
    """The study or training it comes from."""
    model: SequenceModel
    config: AnyModelConfig
    task: TaskConfig
    vocabulary: Vocabulary
    scale: Scale | None = None
    """What a regression's output means."""
    members: int = 1
    """Where it is more than one, `model` is the mean of that many (`hymate.model.ensemble`)."""
    elsewhere: tuple[str, ...] = ()
    """Parts that every hospital of the study has its own of (`strategy.local_layers`): this is not whole."""


def new_model(config: AnyModelConfig, task: TaskConfig, vocabulary: Vocabulary, seed: int) -> SequenceModel:
    """The untrained model for this task under this vocabulary; weights depend on `seed` alone."""
    model = build(
        config,
        codes=vocabulary.size,
        static_width=vocabulary.static_width,
        time_scale_hours=task.lookback_hours,
        seed=seed,
    )
    if len(task.label_sets) > 1:
        head = model.get_submodule("classification_head")
        assert isinstance(head, ClassificationHead)  # every model's
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.classification_head = ClassificationHead(head.out.in_features, len(task.label_sets))
    return model


def save_model(folder: Path, saved: SavedModel) -> None:
    """Write the three files, config last: a folder that has it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    saved.vocabulary.save(folder / "vocabulary.json")
    save_weights(folder / "weights.safetensors", saved.model)
    config = {
        "format": FORMAT,
        "study": saved.name,
        "task": saved.task.model_dump(mode="json"),
        "model": saved.config.model_dump(mode="json"),
        "vocabulary_hash": saved.vocabulary.hash,
        **({} if saved.scale is None else {"scale": asdict(saved.scale)}),
        **({} if saved.members == 1 else {"members": saved.members}),
        **({"elsewhere": list(saved.elsewhere)} if saved.elsewhere else {}),
    }
    write_text(folder / "config.json", json.dumps(config, indent=2))


def load_model(run: Path, part: str = MODEL) -> SavedModel:
    """The model in `run`: a run directory, of `hymate train` or of a federated study, or its `part` itself.

    Raises `InputFault` where there is none, a file of it is missing, damaged or of another model, or parts
    of it stayed at the hospitals.
    """
    folder = run / part if (run / part).is_dir() else run
    path = folder / "config.json"
    if not path.is_file():
        remedy = (
            "give a run directory that has finished" if part == MODEL else "give a run that has pretrained"
        )
        raise InputFault(run, f"holds no model ({part}/config.json)", remedy)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        name, recorded = str(content["study"]), str(content["vocabulary_hash"])
        task = TaskConfig.model_validate(content["task"])
        config = _MODEL.validate_python(content["model"])
        known = content["format"] == FORMAT
        scale = Scale(**content["scale"]) if "scale" in content else None
        members = int(content.get("members", 1))
        elsewhere = ", ".join(content.get("elsewhere", ()))
    except (ValueError, KeyError, TypeError) as fault:
        what = f"is not a model's config ({type(fault).__name__}: {str(fault).splitlines()[0]})"
        raise InputFault(path, what, "use the release that wrote it, or train again") from None
    if not known:
        raise InputFault(
            path, f"has format {content['format']}, this program reads {FORMAT}", "use its release"
        )
    if elsewhere:
        what = f"is not whole: every hospital of study {name} has its own {elsewhere}"
        raise InputFault(folder, what, "ask one for its own model: `model` of this run in its state folder")
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    if vocabulary.hash != recorded:
        raise InputFault(
            folder, "vocabulary.json is not the one the model was trained with", "restore the folder whole"
        )
    model = new_model(config, task, vocabulary, seed=0)
    if members > 1:
        others = [new_model(config, task, vocabulary, seed=0) for _ in range(members - 1)]
        model = Ensemble([model, *others], of_probabilities=task.kind != "regression")
    load_weights(folder / "weights.safetensors", model)
    model.eval()
    return SavedModel(name, model, config, task, vocabulary, scale, members)


def as_ensemble(members: Sequence[SavedModel], name: str) -> SavedModel:
    """Models of one configuration, task and vocabulary as one, which says the mean of what they say."""
    first = members[0]
    models = [member.model for member in members]
    model = Ensemble(models, of_probabilities=first.task.kind != "regression")
    return replace(first, name=name, model=model, members=len(members))


def load_pretrained(run: Path, into: SavedModel) -> None:
    """Put the pretrained weights of an earlier run into the model of `into`.

    The head of the task and the summary branch stay as they are: pretraining does not train them, and the
    task may be another.

    Raises `InputFault` where vocabulary, length of the window or model configuration differ; `dropout`
    may, it is no weight, and what the summary branch is like.
    """
    saved, model = load_model(run, PRETRAINED), into.model
    if saved.vocabulary.hash != into.vocabulary.hash:
        there, here = saved.vocabulary.hash[:12], into.vocabulary.hash[:12]
        what = f"was pretrained with vocabulary {there}, here it is {here}"
        raise InputFault(run, what, "use the same data, split, window and vocabulary settings")
    theirs, ours = _structure(saved), _structure(into)
    different = sorted(key for key in ours.keys() | theirs.keys() if theirs.get(key) != ours.get(key))
    if different:
        key = different[0]
        what = f"was pretrained with {key} {theirs.get(key)}, here it is {ours.get(key)}"
        raise InputFault(run, what, "set it as it was there, or pretrain anew")
    weights = {name: tensor for name, tensor in saved.model.state_dict().items() if _pretrained(name)}
    model.load_state_dict({**model.state_dict(), **weights})


def _structure(saved: SavedModel) -> dict[str, Any]:
    """What must agree for weights to mean the same."""
    config = saved.config.model_dump(mode="json", exclude=NOT_PRETRAINED)
    fields = {f"model.{key}": value for key, value in config.items()}
    return {**fields, "task.lookback_hours": saved.task.lookback_hours}  # the time embedding's scale


def _pretrained(parameter: str) -> bool:
    return parameter.split(".", 1)[0] not in ("classification_head", "summary")
