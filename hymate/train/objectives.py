"""The losses, one number per stay.

A stay's loss depends on that stay alone. Dividing by a count over the whole batch would couple
patients, and per-sample clipping (DP-SGD) would then bound nothing.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hymate.data.forecasting import ForecastBatch


def forecast_loss(prediction: Tensor, batch: ForecastBatch, clip: float | None = None) -> Tensor:
    """Masked squared error, mean over the values measured in each stay's next window.

    `clip`: targets beyond it count as it.

    prediction (B, V + 1) -> (B,); 0 for a stay of which nothing was measured there.
    STraTS, arXiv 2107.14293, section 3.3, divided per stay instead of per batch.
    """
    measured = batch.target_mask.to(prediction.dtype)  # (B, V + 1)
    target = batch.target if clip is None else batch.target.clamp(-clip, clip)
    squared = (prediction - target).square() * measured
    return squared.sum(dim=1) / measured.sum(dim=1).clamp(min=1.0)


def event_loss(logits: Tensor, batch: ForecastBatch) -> Tensor:
    """Cross-entropy of which codes are measured in the next window, mean over codes: (B, V + 1) -> (B,)."""
    measured = batch.target_mask[:, 1:].to(logits.dtype)  # without padding
    return F.binary_cross_entropy_with_logits(logits[:, 1:], measured, reduction="none").mean(dim=1)


def classification_loss(logits: Tensor, label: Tensor, positive_weight: float) -> Tensor:
    """Cross-entropy, positives counted `positive_weight` times: logits, label (B,) -> (B,)."""
    weight = logits.new_tensor(positive_weight)
    return F.binary_cross_entropy_with_logits(logits, label, pos_weight=weight, reduction="none")


def multilabel_loss(logits: Tensor, labels: Tensor, positive_weights: Tensor) -> Tensor:
    """Cross-entropy, mean over the labels that a stay has: logits, labels (B, K) -> (B,).

    labels: 0, 1, or NaN where the stay lacks the label; positive_weights (K,).
    """
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), pos_weight=positive_weights, reduction="none"
    )
    return (losses * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def regression_loss(prediction: Tensor, label: Tensor, mean: float, std: float) -> Tensor:
    """Squared error of a z-score under the training labels' mean and std: prediction, label (B,) -> (B,)."""
    return (prediction - (label - mean) / std).square()


def smoothed(labels: NDArray[np.float32], train: NDArray[np.int64], share: float) -> NDArray[np.float32]:
    """Labels (N,) or (N, K) moved by `share` towards the mean label of the stays in `train`; NaN stays.

    Towards the mean rather than 1/2: where few die, probabilities stay true on average.
    """
    if not share or not np.isfinite(labels[train]).any():
        return labels
    mean = np.nanmean(labels[train].astype(np.float64), axis=0)
    moved: NDArray[np.float32] = ((1.0 - share) * labels + share * mean).astype(np.float32)
    return moved


def class_weight(labels: NDArray[np.floating]) -> float:
    """Negatives per positive among labels 0, 1 (NaN: none given); 1.0 where a class is missing."""
    positives = int((labels == 1).sum())
    negatives = int((labels == 0).sum())
    return negatives / positives if positives and negatives else 1.0
