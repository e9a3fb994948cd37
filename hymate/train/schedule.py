"""The learning rate over a phase, as a function of the place in it and of nothing else.

A site that trains one epoch a round in a fresh process, and a training that was killed and goes on,
therefore take the same steps as one that trains without a break.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.config import OptimiserConfig

LOWEST = 0.02  # where the cosine ends: a last epoch that learns nothing would be a waste


def rate_factor(config: OptimiserConfig, step: int, total: int) -> float:
    """What the learning rate is multiplied with in `step` (from 0) of the phase's `total`: in (0, 1].

    Warm-up rises linearly over the first `config.warmup` of the steps; a step beyond `total` counts as
    the last.
    """
    rising = round(config.warmup * total)
    factor = min(1.0, (step + 1) / (rising + 1))
    if config.schedule == "cosine":
        factor *= max(LOWEST, 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total))))
    return factor


def changes(config: OptimiserConfig) -> bool:
    """Whether the learning rate is another from step to step."""
    return config.schedule != "constant" or config.warmup > 0.0


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its first one."""
    for group in optimiser.param_groups:
        group["lr"] = factor * group.setdefault("initial_lr", group["lr"])
