"""From a model's configuration to the model: HyMaTE or a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hymate.model.baselines.gru import GRU
from hymate.model.baselines.gru_d import GRUD
from hymate.model.baselines.interp_net import InterpNet
from hymate.model.baselines.mamba import MambaOnly
from hymate.model.baselines.sand import SAnD
from hymate.model.baselines.strats import STraTS
from hymate.model.baselines.tcn import TCN
from hymate.model.baselines.transformer import TransformerOnly
from hymate.model.hymate import HyMaTE
from hymate.model.sequence_model import SequenceModel

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the models need none
    from hymate.model.config import AnyModelConfig

MODELS: dict[str, Any] = {
    "hymate": HyMaTE,
    "gru": GRU,
    "gru_d": GRUD,
    "tcn": TCN,
    "sand": SAnD,
    "interp_net": InterpNet,
    "strats": STraTS,
    "mamba": MambaOnly,
    "transformer": TransformerOnly,
}
"""A configuration's `name` -> the class that it builds."""


def build(
    config: AnyModelConfig, *, codes: int, static_width: int, time_scale_hours: float, seed: int
) -> SequenceModel:
    """The model with first weights that depend on `seed` alone; torch's own generator is left as it was.

    codes: V; static_width: S, 0 where there are no demographics; time_scale_hours: the task's look-back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: SequenceModel = MODELS[config.name](config, codes, static_width, time_scale_hours)
    return model
