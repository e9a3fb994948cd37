"""One round of local training at the site, and the site's own model for comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from client.agreed import agreed_store
from client.evaluation import arrays_of, report_on, scored_split, told_and_kept
from client.local_round import Strategist, Train, Trained
from client.site import SiteConfig
from client.spare_model import some_model
from hymate.data.store import TripletStore
from hymate.errors import SAME_RELEASE, InputFault
from hymate.model.hymate import HyMaTE
from hymate.protocol import AloneReply, AloneRequest, FinetuneRequest, PretrainRequest, Training, TrainReply
from hymate.score_reports import ScoreReport
from hymate.scoring_protocol import KeptScores
from hymate.train.alone import train_alone
from hymate.train.loop import EpochResult, LocalHook, finetune_epochs, pretrain_epochs
from hymate.train.scoring import forecast_error, label_error, score
from strategies.arrays import Weights
from strategies.base import Arrays

if TYPE_CHECKING:  # Opacus is imported where a round takes noise
    from client.noise import NoisyRound


@contextmanager
def received_model(
    site: SiteConfig, request: Training, weights: Weights
) -> Iterator[tuple[HyMaTE, TripletStore]]:
    """For one answer: the model under the weights received, and the store it reads.

    Wrong keys or shapes are an `InputFault`, never a partly loaded model.
    """
    store = agreed_store(site, request.task, request.vocabulary_hash)
    shape = request.model, store.header.codes, len(store.header.static_names), request.task.lookback_hours
    with some_model(*shape) as model:
        state = model.state_dict()
        wrong = sorted(set(state) ^ set(weights)) or sorted(
            name for name, array in weights.items() if array.shape != state[name].shape
        )
        if wrong:
            raise InputFault(
                f"site {site.name}",
                f"weights received do not fit the study's model ({len(wrong)} arrays, first: {wrong[0]})",
                SAME_RELEASE,
            )
        for name, array in weights.items():
            state[name].copy_(torch.from_numpy(np.asarray(array)))
        yield model, store


def pretrain(
    site: SiteConfig, request: PretrainRequest, model: HyMaTE, store: TripletStore, beside: Weights
) -> tuple[TrainReply, Arrays]:
    """Forecast error of the weights received, then this round's epochs of masked forecasting."""
    config, seed = request.pretrain, request.seed
    strategist = Strategist(site, request, model, beside)
    noise = noise_of(site, request, model, store)
    received = None
    tellable = not request.privacy.dp_statistics and len(store.rows("tuning")) >= site.policy.min_cell
    if tellable:  # an error of few is an error of each, and one of many is covered by no noise
        received = forecast_error(strategist.own_model, store, config, seed)

    def loss() -> float:
        measured = forecast_error(model, store, config, seed, "train")
        return math.nan if measured is None else measured

    done = strategist.train(training_of(request, store, noise), loss, store, noise=noise)
    return _reply(site, done, noise).model_copy(update={"received_error": received}), done.arrays


def finetune(
    site: SiteConfig, request: FinetuneRequest, model: HyMaTE, store: TripletStore, beside: Weights
) -> tuple[TrainReply, Arrays]:
    """Score of the weights received on tuning, where it is wanted, then this round's epochs on the label."""
    strategist = Strategist(site, request, model, beside)
    noise = noise_of(site, request, model, store)
    received = _received(site, request, strategist.own_model, store) if request.score else None
    done = strategist.train(
        training_of(request, store, noise),
        lambda: label_error(model, store, request.positive_weight),
        store,
        lambda rows: score(model, store, rows),
        noise,
    )
    return _reply(site, done, noise).model_copy(update={"received": received}), done.arrays


def _received(site: SiteConfig, request: FinetuneRequest, model: HyMaTE, store: TripletStore) -> ScoreReport:
    """How the weights received do on tuning stays, with noise where the study covers that with it."""
    if not request.privacy.dp_statistics:
        return report_on(model, store, "tuning", site.policy)
    from client.noisy_figures import noisy_report

    return noisy_report(site, request, "tuning", request.privacy.evaluation_noise, model, store)


def training_of(
    request: PretrainRequest | FinetuneRequest, store: TripletStore, noise: NoisyRound | None
) -> Train:
    """What the epochs of this round are, whichever model they train."""

    def train(
        model: nn.Module,
        optimiser: torch.optim.AdamW,
        hook: LocalHook | None,
        first: int,
        epochs: int,
        name: str,
    ) -> EpochResult:
        trained = cast(HyMaTE, model)
        if isinstance(request, PretrainRequest):
            return pretrain_epochs(
                trained,
                store,
                request.pretrain,
                optimiser,
                seed=request.seed,
                first_epoch=first,
                epochs=epochs,
                hook=hook,
            )
        return finetune_epochs(
            trained,
            store,
            request.finetune,
            optimiser,
            positive_weight=request.positive_weight,
            seed=request.seed,
            first_epoch=first,
            epochs=epochs,
            hook=hook,
        )

    return train if noise is None else noise.train


def noise_of(
    site: SiteConfig, request: PretrainRequest | FinetuneRequest, model: HyMaTE, store: TripletStore
) -> NoisyRound | None:
    """What the study's `privacy:` section asks of this round; None: nothing."""
    if request.privacy.mode == "none":
        return None
    from client.noise import NoisyRound

    return NoisyRound(site, request, model, store)


def _reply(site: SiteConfig, done: Trained, noise: NoisyRound | None) -> TrainReply:
    result = done.result
    if noise is not None:
        return TrainReply(
            site=site.name,
            stays=None,
            loss=None,
            steps=None,
            seconds=round(result.seconds),
            noise=noise.declaration,
            spent=noise.spent(),
        )
    return TrainReply(
        site=site.name,
        stays=result.stays,
        loss=result.loss,
        steps=result.steps,
        seconds=result.seconds,
        facts=done.facts,
    )


def train_by_itself(
    site: SiteConfig, request: AloneRequest, model: HyMaTE, store: TripletStore
) -> tuple[AloneReply, Arrays | None]:
    """The comparison: same start, same budget, but this site's stays only.

    The model's weights go with the reply where they are asked for and the site's policy lets them.
    """
    began = time.perf_counter()
    result = train_alone(store, model, request.pretrain, request.finetune, seed=request.seed)
    found = scored_split(model, store, "held_out", site.policy)
    keep = KeptScores(run=request.run, kind="local")
    reply = AloneReply(
        site=site.name,
        held_out=told_and_kept(site, request.study, found, request.detail, keep),
        pretrain_epochs=result.pretrain_epochs,
        finetune_epochs=result.finetune_epochs,
        best_epoch=result.best_epoch,
        seconds=time.perf_counter() - began,
    )
    shared = request.share and site.policy.share_own_model
    return reply, arrays_of(model) if shared else None
