"""All sites' reports folded into one: what a pooled evaluation would have said, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hymate.evaluate.histograms import BINS, Bounded, ScoreCells, auroc, average_precision, pool
from hymate.score_reports import ScoreReport


@dataclass(frozen=True)
class PooledFigures:
    """Figures over the sites that could send cells; None where nobody could."""

    sites: int
    n: int
    positives: int
    auroc: Bounded | None
    auprc: Bounded | None
    log_loss: float | None
    brier: float | None
    cells: ScoreCells | None = None
    """All sites' cells; None where nobody could send any."""

    @property
    def criterion(self) -> float | None:
        """What early stopping watches: AUROC + average precision (the lineage's protocol), or the
        negative log loss where the pool has one class only."""
        if self.auroc is not None and self.auprc is not None:
            return self.auroc.estimate + self.auprc.estimate
        return None if self.log_loss is None else -self.log_loss


def pooled_figures(reports: Sequence[ScoreReport | None], bins: int = BINS) -> PooledFigures:
    """Merge reports of the same weights on the same split; never a mean of AUROCs."""
    usable = [report for report in reports if report is not None and report.positives is not None]
    cells = [report.cells.arrays() for report in usable if report.cells is not None]
    merged = pool(cells) if cells else None
    stays = sum(report.n or 0 for report in usable)
    losses = [report.log_loss_sum for report in usable if report.log_loss_sum is not None]
    errors = [report.squared_error_sum for report in usable if report.squared_error_sum is not None]
    return PooledFigures(
        sites=len(usable),
        n=stays,
        positives=sum(report.positives or 0 for report in usable),
        auroc=auroc(merged, bins) if merged else None,
        auprc=average_precision(merged, bins) if merged else None,
        log_loss=sum(losses) / stays if losses and stays else None,
        brier=sum(errors) / stays if errors and stays else None,
        cells=merged,
    )
