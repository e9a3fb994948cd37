"""The model of the last answer, for the next one.

To build the modules takes longer than to load weights into them. A deployed site has a process for every
message, and builds each time; a simulation's workers stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hymate.config import ModelConfig
from hymate.model.hymate import HyMaTE, build_model

_spare: dict[tuple[ModelConfig, int, int, float], HyMaTE] = {}
"""One at most: studies do not alternate."""


@contextmanager
def some_model(
    config: ModelConfig, codes: int, static_width: int, time_scale_hours: float
) -> Iterator[HyMaTE]:
    """A model of this shape for one answer; its weights mean nothing until others are loaded.

    It is kept only where the answer came to its end, and then without all that training left on it.
    """
    shape = (config, codes, static_width, time_scale_hours)
    model = _spare.pop(shape, None) or build_model(*shape, seed=0)
    yield model
    for parameter in model.parameters():
        parameter.grad = None
        parameter.__dict__.clear()  # where private training leaves what it knows of each patient
    _spare.clear()
    _spare[shape] = model.train()
