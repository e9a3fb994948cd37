"""How a model does at one site, in counts and sums on the wire."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from hymate.config import Frozen
from hymate.evaluate.histograms import ScoreCells
from hymate.evaluation_config import AttributeConfig


class Detail(Frozen):
    """What all sites' figures have in common, agreed on their tuning stays."""

    edges: tuple[float, ...]
    """Where bins of score begin, ascending in (0, 1)."""
    threshold: float | None = None
    """The operating point: one of `edges`."""
    groups: tuple[AttributeConfig, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    """Names of attributes whose groups are also told together."""


class Cells(Frozen):
    """`hymate.evaluate.histograms.ScoreCells` on the wire."""

    low: list[int]
    high: list[int]
    positives: list[int]
    negatives: list[int]
    score_sum: list[float] | None = None

    @classmethod
    def of(cls, cells: ScoreCells, *, sums: bool = False) -> Cells:
        return cls(
            low=cells.low.tolist(),
            high=cells.high.tolist(),
            positives=cells.positives.tolist(),
            negatives=cells.negatives.tolist(),
            score_sum=cells.score_sum.tolist() if sums and cells.score_sum is not None else None,
        )

    def arrays(self) -> ScoreCells:
        low, high, positives, negatives = (
            np.array(part, dtype=np.int64) for part in (self.low, self.high, self.positives, self.negatives)
        )
        sums = None if self.score_sum is None else np.array(self.score_sum, dtype=np.float64)
        return ScoreCells(low, high, positives, negatives, sums)


class OwnFit(Frozen):
    """A site's own recalibration: slope and calibration in the large, with standard errors; None: none."""

    slope: float | None = None
    level: float | None = None
    """The intercept that goes with the slope: where the pooled fit begins."""
    slope_error: float | None = None
    intercept: float | None = None
    intercept_error: float | None = None


class GroupReport(Frozen):
    """Figures of one group at one site; every count in it is 0 or at least the site's minimum."""

    n: int
    positives: int
    score_sum: float
    squared_error_sum: float
    squared_error_squares: float
    log_loss_sum: float
    log_loss_squares: float
    auroc: float | None = None
    """Exact; None where the group has one class only."""
    auroc_variance: float | None = None
    others_auroc: float | None = None
    """Of all other stays of the site; None where they have too few of a class."""
    others_variance: float | None = None
    own_fit: OwnFit | None = None
    cells: Cells
    deviation: float | None = None
    """As in `ScoreReport`."""


class ScoreReport(Frozen):
    """How well a model does on one split of one site, without any patient's score.

    With noise (`deviation`) it is of people instead of stays, and all of it is made of the noisy counts
    (`hymate.evaluate.noisy_cells`): no figure in it is exact.
    """

    n: int | None
    """Labelled stays of the split; None where they are fewer than the site's minimum."""
    positives: int | None
    """None where positives or negatives are fewer than the site's minimum: then no figure is sent."""
    auroc: float | None = None
    """Exact, computed at the site; None where a class is missing or too small."""
    auprc: float | None = None
    """Average precision, exact, computed at the site."""
    log_loss_sum: float | None = None
    squared_error_sum: float | None = None
    cells: Cells | None = None
    auroc_variance: float | None = None
    """DeLong's, stays of one subject taken together. This and what follows: where `Detail` asked for it."""
    score_sum: float | None = None
    squared_error_squares: float | None = None
    """Sum of the stays' squared (score - label)^2: how sure the Brier score is."""
    log_loss_squares: float | None = None
    """The same of the log loss."""
    own_fit: OwnFit | None = None
    groups: dict[str, GroupReport] = Field(default_factory=dict)
    held_back: tuple[str, ...] = ()
    """Groups that the site has and does not tell, being small or giving away one that is."""
    deviation: float | None = None
    """Standard deviation of the noise on each class's number of people in each of the agreed cells; None:
    there is none."""
