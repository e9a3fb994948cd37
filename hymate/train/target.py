"""What a task asks of the model: one boolean label, several, or a number.

A target gives the loss of fine-tuning, the figures on tuning stays that decide when it stops, and what a
prediction means. Labels lie beside the store, in the order of its stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hymate.config import FinetuneConfig, TaskConfig
from hymate.data.batching import TripletBatch
from hymate.data.store import TripletStore
from hymate.evaluate.metrics import auroc, average_precision, log_loss_sum
from hymate.train.objectives import (
    class_weight,
    classification_loss,
    multilabel_loss,
    regression_loss,
    smoothed,
)
from hymate.train.scoring import labelled

Floats = NDArray[np.float64]
Criterion = Literal["auroc + average precision", "log loss", "root mean squared error", "none"]


@dataclass(frozen=True)
class Tuning:
    """How the weights do on the tuning split.

    Of several labels, auroc and auprc are means over those that have both classes, log_loss over all
    that are known.
    """

    stays: int
    auroc: float | None
    """None where a class is missing, and for a number."""
    auprc: float | None
    log_loss: float | None
    """Mean over stays; None without stays, and for a number."""
    rmse: float | None = None
    """Root mean squared error in the label's unit, for a number."""


class Target(Protocol):
    """One kind of task on one store."""

    @property
    def positive_weight(self) -> float | tuple[float, ...] | None:
        """Negatives per positive among training stays, for each label; None for a number."""

    def losses(self, output: Tensor, batch: TripletBatch) -> Tensor:
        """Of the model's output for a batch: (B,)."""

    def tuning(self, output: Floats, rows: NDArray[np.int64]) -> Tuning:
        """Figures of the model's output for these stays of the store."""


@dataclass(frozen=True)
class Binary:
    """One boolean label, `store.label`."""

    labels: NDArray[np.float32]
    positive_weight: float
    learned: NDArray[np.float32] | None = None
    """What training stays are to be given instead of 0 or 1, (N,)."""

    def losses(self, output: Tensor, batch: TripletBatch) -> Tensor:
        label = batch.label
        if self.learned is not None:
            label = torch.from_numpy(self.learned[batch.row.cpu().numpy()]).to(output.device)
        return classification_loss(output, label, self.positive_weight)

    def tuning(self, output: Floats, rows: NDArray[np.int64]) -> Tuning:
        labels, scores = self.labels[rows].astype(np.float64), _probability(output)
        return Tuning(
            stays=len(rows),
            auroc=auroc(labels, scores),
            auprc=average_precision(labels, scores),
            log_loss=log_loss_sum(labels, scores) / len(rows),
        )


@dataclass(frozen=True)
class Multilabel:
    """K boolean labels, (N, K); NaN where a stay lacks one."""

    labels: NDArray[np.float32]
    positive_weight: tuple[float, ...]
    learned: NDArray[np.float32] | None = None
    """What training stays are to be given instead of 0 or 1, (N, K)."""

    def losses(self, output: Tensor, batch: TripletBatch) -> Tensor:
        given = self.labels if self.learned is None else self.learned
        labels = torch.from_numpy(given[batch.row.cpu().numpy()]).to(output.device)
        return multilabel_loss(output, labels, output.new_tensor(self.positive_weight))

    def tuning(self, output: Floats, rows: NDArray[np.int64]) -> Tuning:
        scores, labels = _probability(output), self.labels[rows].astype(np.float64)
        areas, precisions, losses, known = [], [], 0.0, 0
        for column in range(labels.shape[1]):
            has = ~np.isnan(labels[:, column])
            y, p = labels[has, column], scores[has, column]
            area, precision = auroc(y, p), average_precision(y, p)
            if area is not None and precision is not None:
                areas.append(area)
                precisions.append(precision)
            losses, known = losses + log_loss_sum(y, p), known + int(has.sum())
        return Tuning(
            stays=len(rows),
            auroc=float(np.mean(areas)) if areas else None,
            auprc=float(np.mean(precisions)) if areas else None,
            log_loss=losses / known,
        )


@dataclass(frozen=True)
class Regression:
    """A number, `store.label`; the model says its z-score under the training stays' mean and std."""

    labels: NDArray[np.float32]
    mean: float
    std: float
    positive_weight: None = None

    def losses(self, output: Tensor, batch: TripletBatch) -> Tensor:
        return regression_loss(output, batch.label, self.mean, self.std)

    def tuning(self, output: Floats, rows: NDArray[np.int64]) -> Tuning:
        error = self.mean + self.std * output - self.labels[rows]
        return Tuning(len(rows), None, None, None, rmse=float(np.sqrt(np.mean(np.square(error)))))


def target_of(
    store: TripletStore,
    task: TaskConfig,
    labels: NDArray[np.float32] | None = None,
    finetune: FinetuneConfig | None = None,
    soft: NDArray[np.float32] | None = None,
) -> Target:
    """The task's target on `store`; `labels` (N, K) are needed where it has several.

    finetune: weight of positives and smoothing of labels; default: balanced, none. soft: for each stay what
    another model says of it, (N,), NaN where it says nothing: mixed in before smoothing.
    """
    finetune = finetune or FinetuneConfig()
    train = labelled(store, "train")
    if task.kind == "multilabel":
        assert labels is not None  # whoever makes the store of several label sets makes these
        balanced = (class_weight(column) for column in labels[train].T)
        weights = tuple(finetune.weight_of_positives(weight) for weight in balanced)
        return Multilabel(labels, weights, smoothed(labels, train, finetune.label_smoothing))
    if task.kind == "regression":
        known = store.label[train].astype(np.float64)
        std = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        return Regression(store.label, float(known.mean()) if len(known) else 0.0, std or 1.0)
    learned = store.label
    if soft is not None and finetune.soft_labels is not None:
        share = np.float32(finetune.soft_labels.share)
        learned = np.where(np.isnan(soft), learned, (1 - share) * learned + share * soft).astype(np.float32)
    weight = finetune.weight_of_positives(class_weight(store.label[train]))
    return Binary(store.label, weight, smoothed(learned, train, finetune.label_smoothing))


def criterion_of(tuning: Tuning) -> Criterion:
    """What weights are judged by: "log loss" where no label has both classes on tuning stays, "none"
    where there is no tuning stay."""
    if not tuning.stays:
        return "none"
    if tuning.rmse is not None:
        return "root mean squared error"
    return "log loss" if tuning.auroc is None else "auroc + average precision"


def merit(tuning: Tuning, criterion: Criterion) -> float | None:
    """The larger, the better; None where nobody can say."""
    if criterion == "none":
        return None
    if criterion == "root mean squared error":
        assert tuning.rmse is not None  # the task's figure
        return -tuning.rmse
    if criterion == "log loss":
        assert tuning.log_loss is not None  # there are stays
        return -tuning.log_loss
    assert tuning.auroc is not None  # both classes are there
    assert tuning.auprc is not None
    return tuning.auroc + tuning.auprc


def _probability(output: Floats) -> Floats:
    probability: Floats = torch.sigmoid(torch.from_numpy(output)).numpy()
    return probability
