"""Small models as updates, and every order in which one may be made smaller."""

from __future__ import annotations

from typing import Any

import numpy as np

from hymate.strategy_config import StrategyConfig

Arrays = dict[str, Any]
TOP = {"name": "top_k", "share": 0.2}
ALL: list[list[Any]] = [
    [],
    ["delta"],
    ["fp16"],
    ["delta", "fp16"],
    ["delta", "int8"],
    ["delta", TOP],
    ["delta", {**TOP, "error_feedback": False}],
    ["delta", TOP, "fp16"],
    ["delta", TOP, "int8"],
    ["delta", {"name": "top_k", "share": 0.01}, "int8"],
    ["delta", {"name": "top_k", "share": 1.0}],
]


def steps(*words: Any) -> Any:
    return StrategyConfig.model_validate({"compression": words}).compression


def model(seed: int = 0, size: float = 1.0) -> Arrays:
    """Weights of every kind a model may hold, empty ones and scalars among them; names out of order."""
    rng = np.random.default_rng(seed)
    return {
        "w": (size * rng.normal(size=(30, 7))).astype(np.float32),
        "b": (size * rng.normal(size=11)).astype(np.float32),
        "fine": size * rng.normal(size=(3, 5)),
        "one": np.float32(rng.normal()).reshape(()),
        "none": np.zeros((0, 4), dtype=np.float32),
        "count": np.array([1, 2, 3], dtype=np.int64),
        "mask": np.array([[True], [False]]),
    }


def near(reference: Arrays, seed: int, size: float = 1e-2) -> Arrays:
    """The reference after some training."""
    moved = model(seed, size)
    return {
        name: array + moved[name] if array.dtype.kind == "f" else moved[name]
        for name, array in reference.items()
    }
