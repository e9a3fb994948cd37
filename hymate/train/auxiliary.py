"""Multi-task fine-tuning: the head also says further labels of a stay, and forgets them afterwards.

What predicts how long a stay lasts, or how ill a score says the patient is, helps to say who dies: the
further labels teach the representation where there are few deaths to learn from (Caruana 1997;
for intensive care Harutyunyan et al., arXiv 1703.07771).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hymate.data.batching import TripletBatch
from hymate.data.store import TripletStore
from hymate.model.heads import ClassificationHead
from hymate.model.sequence_model import SequenceModel
from hymate.train.target import Target, Tuning


@dataclass(frozen=True)
class Auxiliary:
    """A target with A further labels, read from the last A outputs of a widened head."""

    task: Target
    labels: NDArray[np.float32]
    """(N, A), standardised; NaN where a stay lacks one."""
    weight: float

    @property
    def positive_weight(self) -> Any:
        return self.task.positive_weight

    def losses(self, output: Tensor, batch: TripletBatch) -> Tensor:
        """The task's, and `weight` times the mean smooth L1 of all A labels; one a stay lacks counts 0."""
        further = self.labels.shape[1]
        labels = torch.from_numpy(self.labels[batch.row.cpu().numpy()]).to(output.device)  # (B, A)
        known = ~labels.isnan()
        each = F.smooth_l1_loss(output[:, -further:], labels.nan_to_num(), reduction="none") * known
        own = self.task.losses(self._of_task(output), batch)
        further_losses: Tensor = each.sum(dim=1) / further
        return own + self.weight * further_losses

    def tuning(self, output: NDArray[np.float64], rows: NDArray[np.int64]) -> Tuning:
        """The task's figures alone."""
        return self.task.tuning(self._of_task(output), rows)

    def _of_task(self, output: Any) -> Any:
        own = output[:, : -self.labels.shape[1]]
        return own[:, 0] if own.shape[1] == 1 else own


def auxiliary_target(
    target: Target, store: TripletStore, labels: NDArray[np.float32], weight: float
) -> Auxiliary:
    """`target` with further `labels` (N, A) as the data have them, booleans as 0 and 1.

    Columns without a negative number are taken as log(1 + number): days and scores have a long tail.
    Mean and standard deviation are those of the training stays.
    """
    train = store.rows("train")
    columns = []
    for column in labels.T.astype(np.float64):
        taken = np.log1p(column) if np.nanmin(column, initial=0.0) >= 0.0 else column
        known = taken[train][~np.isnan(taken[train])]
        std = float(known.std()) if known.size else 0.0
        columns.append((taken - (known.mean() if known.size else 0.0)) / (std or 1.0))
    return Auxiliary(target, np.stack(columns, axis=1).astype(np.float32), weight)


def widen(model: SequenceModel, further: int, seed: int) -> None:
    """Give the head `further` more outputs; those it has keep their weights."""
    head = _head(model)
    wide = _new_head(head, further, seed)
    with torch.no_grad():
        wide.out.weight[: head.out.out_features] = head.out.weight
        wide.out.bias[: head.out.out_features] = head.out.bias
    model.classification_head = wide


def narrow(model: SequenceModel, further: int) -> None:
    """Take the last `further` outputs away again."""
    head = _head(model)
    kept = head.out.out_features - further
    small = _new_head(head, -further, seed=0)
    with torch.no_grad():
        small.out.weight.copy_(head.out.weight[:kept])
        small.out.bias.copy_(head.out.bias[:kept])
    model.classification_head = small


def _new_head(like: ClassificationHead, further: int, seed: int) -> ClassificationHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ClassificationHead(like.out.in_features, like.out.out_features + further)
    return head.to(like.out.weight.device)


def _head(model: SequenceModel) -> ClassificationHead:
    head = model.get_submodule("classification_head")
    assert isinstance(head, ClassificationHead)  # every model's
    return head
