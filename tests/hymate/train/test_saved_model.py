"""Models on disk: whole, refused when they are not, and pretrained weights under another head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hymate.config import TaskConfig
from hymate.data.vocabulary import Vocabulary, VocabularyEntry
from hymate.errors import InputFault
from hymate.model.config import GRUConfig
from hymate.train.saved_model import (
    PRETRAINED,
    SavedModel,
    Scale,
    load_model,
    load_pretrained,
    new_model,
    save_model,
)
from tests.hymate.train.planted import MODEL

TASK = TaskConfig()
VOCABULARY = Vocabulary(codes=(VocabularyEntry("HR", "bpm", 80.0, 10.0, True),), static=())


def saved(task: TaskConfig = TASK, seed: int = 0, scale: Scale | None = None) -> SavedModel:
    return SavedModel("a", new_model(MODEL, task, VOCABULARY, seed), MODEL, task, VOCABULARY, scale)


@pytest.mark.parametrize(
    "task", [TASK, TaskConfig(kind="multilabel", names=("a", "b", "c")), TaskConfig(kind="regression")]
)
def test_what_is_saved_is_loaded(tmp_path: Path, task: TaskConfig) -> None:
    before = saved(task, seed=3, scale=Scale(5.0, 2.5))
    save_model(tmp_path / "run" / "model", before)
    for place in (tmp_path / "run", tmp_path / "run" / "model"):
        after = load_model(place)
        assert (after.name, after.task, after.config, after.scale) == ("a", task, MODEL, Scale(5.0, 2.5))
        weights = before.model.state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in after.model.state_dict().items())
        assert not after.model.training


def test_pretrained_weights_keep_the_head_of_their_own_task(tmp_path: Path) -> None:
    """Pretraining does not train the head, and three labels need a wider one."""
    source = saved(seed=1)
    save_model(tmp_path / PRETRAINED, source)
    several = saved(TaskConfig(kind="multilabel", names=("a", "b", "c")), seed=2)
    same = saved(seed=2)
    for into in (several, same):
        head = {name: x.clone() for name, x in into.model.state_dict().items() if "classification" in name}
        load_pretrained(tmp_path, into)
        for name, tensor in into.model.state_dict().items():
            assert torch.equal(tensor, head[name] if name in head else source.model.state_dict()[name]), name
        assert len(head) == 2


def test_another_dropout_may_be_fine_tuned_with(tmp_path: Path) -> None:
    save_model(tmp_path / PRETRAINED, saved())
    config = MODEL.model_copy(update={"dropout": 0.4})
    load_pretrained(
        tmp_path, SavedModel("b", new_model(config, TASK, VOCABULARY, 0), config, TASK, VOCABULARY)
    )


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / PRETRAINED, saved())
    config = GRUConfig(d_model=16)
    other = SavedModel("b", new_model(config, TASK, VOCABULARY, 0), config, TASK, VOCABULARY)
    with pytest.raises(InputFault, match="was pretrained with model"):
        load_pretrained(tmp_path, other)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "{", "is not a model's config"),
        ("config.json", "{}", "is not a model's config"),
        ("config.json", None, "holds no model"),
        ("vocabulary.json", None, "cannot be read"),
        ("weights.safetensors", "", "is damaged"),
        ("weights.safetensors", None, "no such file"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(
    tmp_path: Path, file: str, content: str | None, words: str
) -> None:
    save_model(tmp_path / "model", saved())
    path = tmp_path / "model" / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputFault, match=words):
        load_model(tmp_path)


def test_a_foreign_vocabulary_or_format_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model", saved())
    path = tmp_path / "model" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "vocabulary_hash": "0" * 64}))
    with pytest.raises(InputFault, match="not the one the model was trained with"):
        load_model(tmp_path)
    path.write_text(json.dumps({**content, "format": 9}))
    with pytest.raises(InputFault, match="has format 9"):
        load_model(tmp_path)
