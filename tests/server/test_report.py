"""Pooled figures of a report."""

from __future__ import annotations

import numpy as np
import pytest

from hymate.evaluate.histograms import count_scores
from hymate.score_reports import Cells, ScoreReport
from server.pooled import pooled_figures


def test_pooled_figures_leave_out_sites_that_could_not_say() -> None:
    labels, scores = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.6, 0.4, 0.9])
    full = ScoreReport(
        n=4,
        positives=2,
        log_loss_sum=2.0,
        squared_error_sum=1.0,
        cells=Cells.of(count_scores(labels, scores)),
    )
    figures = pooled_figures([full, ScoreReport(n=3, positives=None), None])
    assert (figures.sites, figures.n, figures.positives) == (1, 4, 2)
    assert figures.auroc is not None
    assert figures.auroc.estimate == pytest.approx(0.75)
    assert figures.log_loss == pytest.approx(0.5)
    nothing = pooled_figures([None])
    assert nothing.auroc is None
    assert nothing.criterion is None
