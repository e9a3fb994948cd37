"""Before fine-tuning end to end: head, demographics and summary branch learn, the encoder stays as it is.

A fresh head's first gradients would otherwise pull a pretrained encoder about (Kumar et al., arXiv
2202.10054). What the frozen encoder says of a stay, without dropout, never changes: it is computed once,
and an epoch takes a second.
"""

from __future__ import annotations

import time
from dataclasses import replace

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
from hymate.train.averaging import Average
from hymate.train.encoded import encode_stays, frozen_epochs, without_observations
from hymate.train.loop import EpochResult, Objective, Phase
from hymate.train.placement import device_of, on_device
from hymate.train.scoring import labelled


def warm_up(
    model: SequenceModel,
    store: TripletStore,
    config: FinetuneConfig,
    optimiser: torch.optim.Optimizer,
    *,
    objective: Objective,
    seed: int,
    average: Average | None = None,
) -> EpochResult:
    """All `config.warm_epochs` epochs on the labelled training stays; the encoder's weights do not move.

    Dropout of the model's rate falls on the pooled sequence instead. Raises `InputFault` where there is no
    training stay, the loss stops being finite, or the model is another than HyMaTE.
    """
    if not isinstance(model, HyMaTE):
        raise InputFault("finetune.warm_epochs", "is HyMaTE's", "set it to 0 for another model")
    began = time.perf_counter()
    rows = labelled(store, "train")
    if not rows.size:
        raise InputFault("warm-up", "no training stay can be used", "check the task's labels and window")
    device = device_of(model)
    stays = encode_stays(model, store, rows)

    def losses(at: NDArray[np.int64]) -> Tensor:
        batch = on_device(without_observations(store, rows[at]), device)
        pooled = F.dropout(stays.pooled[at].to(device), model.config.dropout)
        figures = None if stays.figures is None else stays.figures[at].to(device)
        return objective(model.classify_pooled(pooled, batch.static, figures), batch)

    result = frozen_epochs(
        model,
        optimiser,
        config,
        lambda rng: losses,
        stays=len(rows),
        epochs=config.warm_epochs,
        batch_size=config.warm_batch_size,
        seed=seed,
        phase=Phase.WARM,
        name="warm-up",
        average=average,
    )
    return replace(result, seconds=time.perf_counter() - began)  # the encoding, too
