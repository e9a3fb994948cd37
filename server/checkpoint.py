"""Global weights on disk: after every round, the best so far, and the final model with its config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hymate.data.vocabulary import Vocabulary
from hymate.durable import write_text
from hymate.model.hymate import HyMaTE
from hymate.train.checkpoint import save_weights
from server.study import StudyConfig

Weights = Mapping[str, NDArray[np.generic]]

KEPT_ROUNDS = 2


class Checkpoints:
    """`checkpoints/` of one run. Every file is whole or absent and carries its phase and round."""

    def __init__(self, run: Path, model: HyMaTE) -> None:
        self.folder = run / "checkpoints"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._model = model

    def save_round(self, phase: str, server_round: int, weights: Weights) -> None:
        """Weights after a round; the last few of a phase are kept."""
        self._save(f"{phase}-{server_round:05d}", weights, {"phase": phase, "round": server_round})
        for old in sorted(self.folder.glob(f"{phase}-*.safetensors"))[:-KEPT_ROUNDS]:
            old.unlink()

    def save_best(self, server_round: int, weights: Weights) -> None:
        """The fine-tuned weights that did best on tuning so far, and the round they came from."""
        self._save("best", weights, {"phase": "finetune", "round": server_round})

    def _save(self, name: str, weights: Weights, state: dict[str, Any]) -> None:
        save_weights(self.folder / f"{name}.safetensors", _filled(self._model, weights), state)


def save_model(
    run: Path, study: StudyConfig, vocabulary: Vocabulary, model: HyMaTE, weights: Weights
) -> None:
    """`model/`: weights, config and vocabulary, enough to predict with."""
    folder = run / "model"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.save(folder / "vocabulary.json")
    config = {
        "format": 1,
        "study": study.name,
        "task": study.task.model_dump(mode="json"),
        "model": study.model.model_dump(mode="json"),
        "vocabulary_hash": vocabulary.hash,
    }
    write_text(folder / "config.json", json.dumps(config, indent=2))
    save_weights(folder / "weights.safetensors", _filled(model, weights))


def _filled(model: HyMaTE, weights: Weights) -> HyMaTE:
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return model
