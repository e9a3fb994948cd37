"""AdamW over a model's parameters: who decays, and who learns at which rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hymate.model.mamba import SelectiveSSM

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.config import OptimiserConfig

TOP = ("classification_head", "summary", "static")
"""Parts of a model, if it has them, that are not its encoder."""


def make_optimiser(
    model: nn.Module, config: OptimiserConfig, *, encoder_rate: float | None = None
) -> torch.optim.AdamW:
    """AdamW; weight decay spares norms, biases, embeddings, and the scan's `A_log` and `D`.

    The encoder learns at `encoder_rate` times the learning rate; default: as `config` has it, or 1.
    """
    if encoder_rate is None:
        encoder_rate = getattr(config, "encoder_rate", 1.0)
    spared = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | SelectiveSSM)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = 0.0 if id(parameter) in spared or parameter.ndim < 2 else config.weight_decay
        rate = config.learning_rate * (encoder_rate if of_encoder(name) else 1.0)
        groups.setdefault((decay, rate), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": found, "weight_decay": decay, "lr": rate} for (decay, rate), found in groups.items()],
        lr=config.learning_rate,
        fused=True,
    )


def of_encoder(parameter: str) -> bool:
    """Whether the parameter of this name reads the sequence."""
    return parameter.split(".", 1)[0] not in TOP
