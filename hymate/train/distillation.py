"""Distillation (Hinton et al., arXiv 1503.02531) on invented stays (Bucila et al., KDD 2006).

A few thousand labels are too few for a network to find what gradient boosting finds in them. But a fitted
boosting can be asked about stays that never were: an invented stay has a real one's demographics and pooled
sequence and, of some codes, the figures of another stay, whole codes at a time, so that each code's figures
fit each other. Asked often enough, boosting is copied by the summary branch almost exactly.

The model as fine-tuning left it is asked too: its log odds and boosting's err differently, and their mean
does better than either. What they were fitted on, labelled training stays, is what is learned from: a
copy of the teachers is as good on other stays as the teachers are there.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hymate.config import FinetuneConfig
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE
from hymate.model.sequence_model import SequenceModel
from hymate.model.summary import SummaryEmbedding
from hymate.train.averaging import Average
from hymate.train.encoded import Losses, encode_stays, frozen_epochs
from hymate.train.loop import EpochResult, Phase, make_optimiser
from hymate.train.placement import device_of
from hymate.train.scoring import labelled

SURE = 1e-6  # boosting's probabilities are cut off this near to 0 and 1


def distil(model: SequenceModel, store: TripletStore, config: FinetuneConfig, *, seed: int) -> EpochResult:
    """All `config.distillation.epochs` epochs; the encoder's weights do not move.

    Further outputs of the head (`finetune.auxiliary`) learn to say what they said before.

    Raises `InputFault` where the model has no summary branch, the labelled training stays have fewer than
    two classes, or the loss stops being finite.
    """
    settings = config.distillation
    assert settings is not None  # whoever calls looked
    if not isinstance(model, HyMaTE) or model.summary is None:
        what = "teaches HyMaTE's summary branch, and the model has none"
        raise InputFault("finetune.distillation", what, "set model.d_summary, or leave distillation out")
    began = time.perf_counter()
    rows, device = labelled(store, "train"), device_of(model)
    stays = encode_stays(model, store, rows)
    found = stays.figures
    assert found is not None  # there is a summary branch
    static = torch.from_numpy(store.static[rows])
    boosting = fit_boosters(found, static, store.label[rows], settings.boosters, seed, store.path)
    teachers = Teachers(boosting, copy.deepcopy(model).eval(), settings.own)

    rate = config.model_copy(update={"learning_rate": settings.learning_rate})
    optimiser: torch.optim.Optimizer = make_optimiser(model, rate)
    average = Average(model, config.ema) if config.ema else None

    def losses(pooled: Tensor, static: Tensor, figures: Tensor, wanted: Tensor) -> Tensor:
        said = _columns(model.classify_pooled(pooled, static, figures))
        loss = F.binary_cross_entropy_with_logits(said[:, 0], torch.sigmoid(wanted[:, 0]), reduction="none")
        if said.shape[1] == 1:
            return loss
        return loss + F.smooth_l1_loss(said[:, 1:], wanted[:, 1:], reduction="none").mean(dim=1)

    def losses_of_epoch(rng: np.random.Generator) -> Losses:
        others = rng.permutation(len(rows))

        def of_invented(at: NDArray[np.int64]) -> Tensor:
            figures = exchange(found[at], found[others[at]], settings.exchanged, rng)
            shown = (stays.pooled[at].to(device), static[at].to(device), figures.to(device))
            return losses(*shown, teachers.log_odds(*shown))

        return of_invented

    with _dropout(model.summary, settings.dropout):
        result = frozen_epochs(
            model,
            optimiser,
            config,
            losses_of_epoch,
            stays=len(rows),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=seed,
            phase=Phase.DISTIL,
            name="distillation",
            average=average,
        )
    if average is not None:
        model.load_state_dict(average.weights)
    return replace(result, seconds=time.perf_counter() - began)  # encoding and boosting, too


def exchange(figures: Tensor, others: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Invent a stay of each: figures and others (B, V + 1, F) -> (B, V + 1, F).

    Each stay takes a share of its own, uniform in [0, 2 share] (at most 1), of its codes from the other.
    """
    stays, codes = figures.shape[:2]
    taken = rng.random((stays, codes)) < rng.uniform(0.0, 2.0 * share, (stays, 1))
    return torch.where(torch.from_numpy(taken).unsqueeze(-1), others, figures)


@dataclass(frozen=True)
class Teachers:
    """Boosting on figures and demographics, and a model; `own` is the model's share in their log odds."""

    boosting: list[Any]
    model: HyMaTE
    own: float

    def log_odds(self, pooled: Tensor, static: Tensor, figures: Tensor) -> Tensor:
        """-> (B, K): of the label, and the model's further outputs as they are."""
        with torch.no_grad():
            said = _columns(self.model.classify_pooled(pooled, static, figures)).clone()
        asked = _table(figures.cpu(), static.cpu())
        probability = np.mean([each.predict_proba(asked)[:, 1] for each in self.boosting], axis=0)
        log_odds = torch.logit(torch.from_numpy(probability).to(said), eps=SURE)
        said[:, 0] = self.own * said[:, 0] + (1.0 - self.own) * log_odds
        return said


def fit_boosters(
    figures: Tensor, static: Tensor, labels: NDArray[np.float32], number: int, seed: int, where: Any
) -> list[Any]:
    """`number` fits of scikit-learn's histogram gradient boosting on what the summary branch reads.

    Slower and more random than the baseline (`hymate.model.baselines.summary`): thousands of figures, of
    which each split sees a tenth. Raises `InputFault` where the labels have one class only.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    if len(np.unique(labels)) != 2:
        what = f"{len(labels)} labelled training stays of fewer than two classes"
        raise InputFault(where, what, "leave finetune.distillation out, or train on others")
    asked = _table(figures, static)
    return [
        HistGradientBoostingClassifier(
            learning_rate=0.03,
            max_iter=300,
            max_leaf_nodes=15,
            min_samples_leaf=20,
            l2_regularization=1.0,
            max_features=0.1,
            early_stopping=False,
            random_state=seed + fit,
        ).fit(asked, labels)
        for fit in range(number)
    ]


def _table(figures: Tensor, static: Tensor) -> NDArray[np.float32]:
    """(B, V + 1, F), (B, S) -> (B, V F + S): code 0 is padding's."""
    table: NDArray[np.float32] = torch.cat([figures[:, 1:].flatten(1), static], dim=1).numpy()
    return table


def _columns(said: Tensor) -> Tensor:
    return said.unsqueeze(1) if said.ndim == 1 else said


@contextmanager
def _dropout(summary: SummaryEmbedding, rate: float) -> Iterator[None]:
    """Within, the branch's dropout is this."""
    layers = (summary.dropout, summary.input_dropout)
    before = [layer.rate for layer in layers]
    for layer in layers:
        layer.rate = rate
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.rate = own
