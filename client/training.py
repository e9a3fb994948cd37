"""One round of local training at the site, and the site's own model for comparison."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from client.evaluation import report_on
from client.queries import agreed_store
from client.site import SiteConfig
from client.state import OptimiserMemory
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE, build_model
from hymate.protocol import (
    AloneReply,
    AloneRequest,
    FinetuneRequest,
    PretrainRequest,
    Training,
    TrainReply,
)
from hymate.train.alone import train_alone
from hymate.train.loop import (
    LocalHook,
    finetune_epochs,
    forecast_error,
    make_optimiser,
    pretrain_epochs,
)

Weights = Mapping[str, NDArray[np.generic]]


def received_model(site: SiteConfig, request: Training, weights: Weights) -> tuple[HyMaTE, TripletStore]:
    """The model under the weights received, and the store it reads; wrong keys or shapes are an
    `InputFault`, never a partly loaded model."""
    store, vocabulary = agreed_store(site, request.task, request.vocabulary_hash)
    model = build_model(
        request.model,
        codes=vocabulary.size,
        static_width=vocabulary.static_width,
        time_scale_hours=request.task.lookback_hours,
        seed=request.seed,
    )
    expected = model.state_dict()
    wrong = sorted(set(expected) ^ set(weights)) or sorted(
        name for name, array in weights.items() if tuple(array.shape) != tuple(expected[name].shape)
    )
    if wrong:
        raise InputFault(
            f"site {site.name}",
            f"weights received do not fit the study's model ({len(wrong)} arrays, first: {wrong[0]})",
            "run the same hymate-federated release at both ends",
        )
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return model, store


def sent_weights(model: HyMaTE) -> dict[str, NDArray[np.generic]]:
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


def pretrain(
    site: SiteConfig, request: PretrainRequest, model: HyMaTE, store: TripletStore, hook: LocalHook | None
) -> TrainReply:
    """Forecast error of the weights received, then this round's epochs of masked forecasting."""
    config = request.pretrain
    received = forecast_error(model, store, config, seed=request.seed)
    optimiser = make_optimiser(model, config)
    memory = OptimiserMemory(site, request.study, "pretrain")
    if request.strategy.optimiser_state == "keep":
        memory.restore(model, optimiser, request.round)
    done = pretrain_epochs(
        model,
        store,
        config,
        optimiser,
        seed=request.seed,
        first_epoch=(request.round - 1) * config.local_epochs,
        epochs=config.local_epochs,
        hook=hook,
    )
    if request.strategy.optimiser_state == "keep":
        memory.remember(model, optimiser, request.round)
    return TrainReply(
        site=site.name,
        stays=done.stays,
        loss=done.loss,
        steps=done.steps,
        seconds=done.seconds,
        received_error=received,
    )


def finetune(
    site: SiteConfig, request: FinetuneRequest, model: HyMaTE, store: TripletStore, hook: LocalHook | None
) -> TrainReply:
    """Score of the weights received on tuning, then this round's epochs on the label."""
    config = request.finetune
    received = report_on(model, store, "tuning", site.policy)
    optimiser = make_optimiser(model, config)
    memory = OptimiserMemory(site, request.study, "finetune")
    if request.strategy.optimiser_state == "keep":
        memory.restore(model, optimiser, request.round)
    done = finetune_epochs(
        model,
        store,
        config,
        optimiser,
        positive_weight=request.positive_weight,
        seed=request.seed,
        first_epoch=(request.round - 1) * config.local_epochs,
        epochs=config.local_epochs,
        hook=hook,
    )
    if request.strategy.optimiser_state == "keep":
        memory.remember(model, optimiser, request.round)
    return TrainReply(
        site=site.name,
        stays=done.stays,
        loss=done.loss,
        steps=done.steps,
        seconds=done.seconds,
        received=received,
    )


def train_by_itself(
    site: SiteConfig, request: AloneRequest, model: HyMaTE, store: TripletStore
) -> AloneReply:
    """The comparison: same start, same budget, but this site's stays only."""
    began = time.perf_counter()
    result = train_alone(store, model, request.pretrain, request.finetune, seed=request.seed)
    return AloneReply(
        site=site.name,
        held_out=report_on(model, store, "held_out", site.policy),
        pretrain_epochs=result.pretrain_epochs,
        finetune_epochs=result.finetune_epochs,
        best_epoch=result.best_epoch,
        seconds=time.perf_counter() - began,
    )
