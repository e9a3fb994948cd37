"""One round of local training at the site, and the site's own model for comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from client.agreed import agreed_store
from client.evaluation import report_on
from client.site import SiteConfig
from client.state import OptimiserMemory
from hymate.config import FinetuneConfig, PretrainConfig
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
    EpochResult,
    LocalHook,
    finetune_epochs,
    forecast_error,
    make_optimiser,
    pretrain_epochs,
)

Weights = Mapping[str, NDArray[np.generic]]


class EpochSpan(TypedDict):
    """Which epochs of a phase a round trains, counted from 0."""

    first_epoch: int
    epochs: int


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
    received = forecast_error(model, store, request.pretrain, seed=request.seed)

    def train(optimiser: torch.optim.AdamW, span: EpochSpan) -> EpochResult:
        return pretrain_epochs(
            model, store, request.pretrain, optimiser, seed=request.seed, hook=hook, **span
        )

    done = _local_round(site, request, model, store, "pretrain", request.pretrain, train)
    return _reply(site, done).model_copy(update={"received_error": received})


def finetune(
    site: SiteConfig, request: FinetuneRequest, model: HyMaTE, store: TripletStore, hook: LocalHook | None
) -> TrainReply:
    """Score of the weights received on tuning, then this round's epochs on the label."""
    received = report_on(model, store, "tuning", site.policy)

    def train(optimiser: torch.optim.AdamW, span: EpochSpan) -> EpochResult:
        return finetune_epochs(
            model,
            store,
            request.finetune,
            optimiser,
            positive_weight=request.positive_weight,
            seed=request.seed,
            hook=hook,
            **span,
        )

    done = _local_round(site, request, model, store, "finetune", request.finetune, train)
    return _reply(site, done).model_copy(update={"received": received})


def _local_round(
    site: SiteConfig,
    request: PretrainRequest | FinetuneRequest,
    model: HyMaTE,
    store: TripletStore,
    phase: str,
    config: PretrainConfig | FinetuneConfig,
    train: Callable[[torch.optim.AdamW, EpochSpan], EpochResult],
) -> EpochResult:
    """This round's epochs, between restoring and remembering the optimiser as the study wants it.

    Weights trained on a handful of stays say too much about them: below the site's minimum it refuses.
    """
    if len(store.rows("train")) < site.policy.min_cell:
        raise InputFault(
            f"site {site.name}",
            f"has fewer training stays than its minimum of {site.policy.min_cell}",
            "leave the site out of the study, or add stays",
        )
    optimiser = make_optimiser(model, config)
    memory = OptimiserMemory(site, request.study, phase, request.run)
    keep = request.strategy.optimiser_state == "keep"
    if keep:
        memory.restore(model, optimiser, request.round)
    first = (request.round - 1) * config.local_epochs
    done = train(optimiser, {"first_epoch": first, "epochs": config.local_epochs})
    if keep:
        memory.remember(model, optimiser, request.round)
    return done


def _reply(site: SiteConfig, done: EpochResult) -> TrainReply:
    return TrainReply(
        site=site.name, stays=done.stays, loss=done.loss, steps=done.steps, seconds=done.seconds
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
