"""A model's word on stays: outputs, probabilities, and the losses that training makes small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hymate.data.batching import evaluation_batches
from hymate.data.forecasting import fixed_forecast_draws
from hymate.model.sequence_model import SequenceModel
from hymate.train.objectives import classification_loss, forecast_loss
from hymate.train.placement import device_of, forecast_on_device, mode, on_device

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.config import PretrainConfig
    from hymate.data.store import TripletStore

FORECAST_DRAWS = 3  # cuts of each tuning stay when pretraining is watched (the lineage's protocol)


def score(
    model: SequenceModel, store: TripletStore, rows: NDArray[np.int64], batch_size: int = 64
) -> NDArray[np.float64]:
    """Probability of the label for each of `rows`, in their order; (n, K) where there are K labels."""
    logits = torch.from_numpy(outputs(model, store, rows, batch_size))
    probabilities: NDArray[np.float64] = torch.sigmoid(logits).numpy()
    return probabilities


def outputs(
    model: SequenceModel, store: TripletStore, rows: NDArray[np.int64], batch_size: int = 64
) -> NDArray[np.float64]:
    """What the head says of each of `rows`, in their order: (n,), or (n, K) where it has K outputs."""
    found, order = [], []
    with mode(model, training=False), torch.inference_mode():
        for batch in evaluation_batches(store, rows, batch_size):
            found.append(model.classify(on_device(batch, device_of(model))).double().cpu().numpy())
            order.append(batch.row.numpy())
    if not found:
        return np.zeros(0)
    values = np.concatenate(found)
    by_row = np.full((len(store), *values.shape[1:]), np.nan)
    by_row[np.concatenate(order)] = values
    chosen: NDArray[np.float64] = by_row[rows]
    return chosen


def forecast_error(
    model: SequenceModel, store: TripletStore, config: PretrainConfig, seed: int, split: str = "tuning"
) -> float | None:
    """Mean forecast loss over a split, each stay cut at 3 times: the same for the same seed.

    No variable is hidden. None where no stay of it can be cut.
    """
    rows = store.rows(split)
    total, stays = 0.0, 0
    with mode(model, training=False), torch.inference_mode():
        for found in fixed_forecast_draws(store, rows, config, FORECAST_DRAWS, seed):
            batch = forecast_on_device(found, device_of(model))
            losses = forecast_loss(model.forecast(batch.input), batch, model.value_clip)
            total += float(losses.sum())
            stays += batch.target.shape[0]
    return total / stays if stays else None


def label_error(
    model: SequenceModel, store: TripletStore, positive_weight: float, split: str = "train"
) -> float:
    """Mean loss on a split's labels, with nothing dropped: what `finetune_epochs` makes small; NaN
    where there is no label."""
    rows = labelled(store, split)
    logits = torch.from_numpy(outputs(model, store, rows))
    labels = torch.from_numpy(store.label[rows].astype(np.float64))
    return float(classification_loss(logits, labels, positive_weight).mean())


def labelled(store: TripletStore, split: str) -> NDArray[np.int64]:
    """Rows of a split whose stay has a label."""
    rows = store.rows(split)
    kept: NDArray[np.int64] = rows[~np.isnan(store.label[rows])]
    return kept
