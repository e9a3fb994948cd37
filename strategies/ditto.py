"""Ditto: every site keeps a model of its own beside the shared one (Li et al. 2021, arXiv 2012.04221).

The shared model is FedAvg's. With the weights w_t received, site i also trains its own v_i, on the same
batches and from where it left it, on

    F_i(v) + (lambda / 2) ||v - w_t||^2

    F_i     loss on site i's stays            v_i   its own model; it starts at the first w_t received
    lambda  strength of the pull; 0: v_i is what the site makes alone, from there on; large: v_i = w_t

The pull is a proximal step after each of the optimiser's (`strategies.proximal`, with what that means for
AdamW). On quadratics F_i = h_i / 2 (v - o_i)^2 it comes to rest at (h_i o_i + lambda w) / (h_i + lambda).

v_i and its optimiser's moments stay at the site; nothing of them is sent. It is what the site is scored
with on tuning and on held-out stays, and what is left at the site in the end. Training takes twice the
time. In pretraining, which is about records and no label, Ditto is FedAvg: own models begin with the
weights that pretraining ended with.

With `local_layers`, v_i has these layers, too, without a pull: those of the site's part in the shared model
are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from strategies.base import Algorithm, LocalRound, SiteHalf
from strategies.fedavg import FedAvg
from strategies.proximal import NearTheReceived


class Ditto(FedAvg):
    """FedAvg, and at every site a model of its own that is held near the shared one."""

    name = "ditto"
    personal = True

    class Settings(Algorithm.Settings):
        strength: Annotated[float, Field(ge=0.0, allow_inf_nan=False, alias="lambda")] = 1.0
        """`lambda`: strength of the pull towards the shared weights."""

    settings: Settings

    def site_half(self) -> SiteHalf:
        return OwnModel(self.settings.strength)

    def personalise(self, model: nn.Module, memory: Mapping[str, Tensor]) -> None:
        put(model, memory)


class OwnModel(SiteHalf):
    """Trains the site's own model before the shared one."""

    noised_only = True

    def trainings(self, phase: Literal["pretrain", "finetune"]) -> int:
        return 2 if phase == "finetune" else 1

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def begin(self, local: LocalRound) -> None:
        if local.phase == "pretrain":
            return
        own = deepcopy(local.model)
        put(own, local.memory)
        near = NearTheReceived(self._strength)
        near.begin(local)
        local.train(own, near)
        local.memory.update({name: tensor.detach() for name, tensor in own.state_dict().items()})


def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Those of the model's weights that are named become these."""
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)
