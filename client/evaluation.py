"""How well a model does on the site's own stays, said in counts that may leave."""

from __future__ import annotations

import numpy as np

from client.policy import publishable
from client.site import Policy, SiteConfig
from hymate.data.store import TripletStore
from hymate.evaluate.histograms import count_scores, join_small_cells
from hymate.evaluate.metrics import auroc, average_precision, log_loss_sum, squared_error_sum
from hymate.model.hymate import HyMaTE
from hymate.protocol import Cells, EvaluateReply, EvaluateRequest, ScoreReport
from hymate.train.loop import labelled, score


def report_on(
    model: HyMaTE, store: TripletStore, split: str, policy: Policy, batch_size: int = 64
) -> ScoreReport:
    """Score a split's labelled stays. Where a class is too small to name, only the total is sent."""
    rows = labelled(store, split)
    labels = store.label[rows].astype(np.float64)
    positives = int(labels.sum())
    nameable = publishable(positives, policy), publishable(labels.size - positives, policy)
    if labels.size == 0 or None in nameable:
        return ScoreReport(n=publishable(labels.size, policy), positives=None)
    scores = score(model, store, rows, batch_size)
    cells = join_small_cells(count_scores(labels, scores), policy.min_cell)
    return ScoreReport(
        n=labels.size,
        positives=positives,
        auroc=auroc(labels, scores),
        auprc=average_precision(labels, scores),
        log_loss_sum=log_loss_sum(labels, scores),
        squared_error_sum=squared_error_sum(labels, scores),
        cells=None if cells is None else Cells.of(cells),
    )


def evaluate(site: SiteConfig, request: EvaluateRequest, model: HyMaTE, store: TripletStore) -> EvaluateReply:
    """Report on one split under the weights just received."""
    report = report_on(model, store, request.split, site.policy, request.batch_size)
    return EvaluateReply(site=site.name, split=request.split, report=report)
