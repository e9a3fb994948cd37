"""A model on disk: weights, config and vocabulary, enough to predict with.

    FOLDER/weights.safetensors
    FOLDER/config.json          task, model, hash of the vocabulary
    FOLDER/vocabulary.json

A training run holds two, `model/` and `pretrained/`; a federated study's run directory one, `model/`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hymate.config import ModelConfig, TaskConfig
from hymate.data.vocabulary import Vocabulary
from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE, build_model
from hymate.train.checkpoint import load_weights, save_weights

FORMAT = 1
MODEL = "model"
PRETRAINED = "pretrained"


@dataclass(frozen=True)
class SavedModel:
    """A model with what its numbers mean."""

    name: str
    """The study or training it comes from."""
    model: HyMaTE
    task: TaskConfig
    vocabulary: Vocabulary


def new_model(config: ModelConfig, task: TaskConfig, vocabulary: Vocabulary, seed: int) -> HyMaTE:
    """The untrained model for this task under this vocabulary; weights depend on `seed` alone."""
    return build_model(
        config,
        codes=vocabulary.size,
        static_width=vocabulary.static_width,
        time_scale_hours=task.lookback_hours,
        seed=seed,
    )


def save_model(folder: Path, saved: SavedModel) -> None:
    """Write the three files, config last: a folder that has it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    saved.vocabulary.save(folder / "vocabulary.json")
    save_weights(folder / "weights.safetensors", saved.model)
    config = {
        "format": FORMAT,
        "study": saved.name,
        "task": saved.task.model_dump(mode="json"),
        "model": saved.model.config.model_dump(mode="json"),
        "vocabulary_hash": saved.vocabulary.hash,
    }
    write_text(folder / "config.json", json.dumps(config, indent=2))


def load_model(run: Path, part: str = MODEL) -> SavedModel:
    """The model in `run`: a run directory, of `hymate train` or of a federated study, or its `part` itself.

    Raises `InputFault` where there is none, or a file of it is missing, damaged or of another model.
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
        config = ModelConfig.model_validate(content["model"])
        known = content["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as fault:
        what = f"is not a model's config ({type(fault).__name__}: {str(fault).splitlines()[0]})"
        raise InputFault(path, what, "use the release that wrote it, or train again") from None
    if not known:
        raise InputFault(
            path, f"has format {content['format']}, this program reads {FORMAT}", "use its release"
        )
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    if vocabulary.hash != recorded:
        raise InputFault(
            folder, "vocabulary.json is not the one the model was trained with", "restore the folder whole"
        )
    model = new_model(config, task, vocabulary, seed=0)
    load_weights(folder / "weights.safetensors", model)
    model.eval()
    return SavedModel(name, model, task, vocabulary)


def load_pretrained(run: Path, model: HyMaTE, task: TaskConfig, vocabulary: Vocabulary) -> SavedModel:
    """Put the pretrained weights of an earlier run into `model`; returns what was saved there.

    The head of the task stays as it is: pretraining does not train it, and the task may be another.

    Raises `InputFault` where vocabulary, length of the window or model configuration differ; `dropout`
    may, it is no weight.
    """
    saved = load_model(run, PRETRAINED)
    if saved.vocabulary.hash != vocabulary.hash:
        what = (
            f"was pretrained with vocabulary {saved.vocabulary.hash[:12]}, here it is {vocabulary.hash[:12]}"
        )
        raise InputFault(run, what, "use the same data, split, window and vocabulary settings")
    theirs = {**saved.model.config.model_dump(mode="json"), "lookback_hours": saved.task.lookback_hours}
    ours = {**model.config.model_dump(mode="json"), "lookback_hours": task.lookback_hours}
    different = sorted(key for key in ours if key != "dropout" and theirs.get(key) != ours[key])
    if different:
        key = different[0]
        what = f"was pretrained with {key} {theirs.get(key)}, here it is {ours[key]}"
        raise InputFault(run, what, "set it as it was there, or pretrain anew")
    weights = saved.model.state_dict()
    model.load_state_dict({**model.state_dict(), **{k: v for k, v in weights.items() if not _of_head(k)}})
    return saved


def _of_head(parameter: str) -> bool:
    return parameter.startswith("classification_head.")
