"""All figures of some stays at one or more sites, from what the sites may tell.

| figure                                   | value                         | interval                        |
|------------------------------------------|-------------------------------|---------------------------------|
| auroc                                    | bounded, exact within a site  | DeLong from cells, in log odds  |
| average_precision, min_se_ppv, ece       | bounded                       | bootstrap of cells              |
| tpr, fpr, specificity, ppv, npv,         | exact at an edge, else        | Wilson                          |
| selection_rate                           | bounded                       |                                 |
| base_rate                                | exact                         | Wilson                          |
| brier, log_loss                          | exact                         | normal, from sums of squares    |
| observed_to_expected                     | exact                         | normal, of its log              |
| calibration_slope, calibration_intercept | exact (recalibration sums)    | normal, from the information    |
| mean_predicted                           | exact                         | none                            |

Stays count as independent, but for a site's own AUROC, where those of one subject are taken together.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hymate.evaluate.cell_bootstrap import DRAWS, drawn_figures, with_interval
from hymate.evaluate.delong import auroc_estimate, variance_from_cells
from hymate.evaluate.estimates import Estimate, Z, exactly, share_between
from hymate.evaluate.histograms import Bounded, ScoreCells, auroc_over_sites, average_precision, pool
from hymate.evaluate.noisy_cells import redrawn, sums_of
from hymate.evaluate.operating_point import confusion_at, min_se_ppv
from hymate.evaluate.reliability import expected_calibration_error

NOISE_DRAWS = 100
AT_THRESHOLD = ("tpr", "fpr", "specificity", "ppv", "npv", "selection_rate")
NAMES = (
    "auroc",
    "average_precision",
    "min_se_ppv",
    *AT_THRESHOLD,
    "base_rate",
    "mean_predicted",
    "brier",
    "log_loss",
    "ece",
    "observed_to_expected",
    "calibration_slope",
    "calibration_intercept",
)


@dataclass(frozen=True)
class Part:
    """Stays of one site, or of one group there. Sums are over stays; `..._squares` of the squared terms.

    auroc, auroc_variance and average_precision are exact; None where not told. `deviation` is that of
    the noise on each number that the cells were made of (`hymate.evaluate.noisy_cells`); None: there is none.
    """

    cells: ScoreCells
    score_sum: float
    squared_error_sum: float
    squared_error_squares: float
    log_loss_sum: float
    log_loss_squares: float
    auroc: float | None = None
    auroc_variance: float | None = None
    average_precision: float | None = None
    deviation: float | None = None

    @property
    def positives(self) -> int:
        return self.cells.total_positives

    @property
    def n(self) -> int:
        return self.cells.total_positives + self.cells.total_negatives


@dataclass(frozen=True)
class Fitted:
    """A recalibration's coefficients with their standard errors."""

    slope: float | None = None
    slope_error: float | None = None
    intercept: float | None = None
    intercept_error: float | None = None


@dataclass(frozen=True)
class Grid:
    """Edges of the bins, (K - 1,), and the operating point among them; `seed` of the bootstrap."""

    edges: np.ndarray
    threshold: float | None
    seed: int = 0

    @property
    def bins(self) -> int:
        return len(self.edges) + 1

    @property
    def threshold_bin(self) -> int | None:
        """The bin whose lower edge is the threshold."""
        return None if self.threshold is None else int(np.searchsorted(self.edges, self.threshold, "right"))


def figures(
    parts: Sequence[Part], grid: Grid, fitted: Fitted, *, draws: int = DRAWS
) -> dict[str, Estimate | None]:
    """Each of `NAMES`; None where the stays do not define it (see `undefined`).

    Args:
        draws: of the bootstrap; 0: average_precision, min_se_ppv and ece have bounds only.
    """
    found: dict[str, Estimate | None] = dict.fromkeys(NAMES)
    if not parts:
        return found
    if any(part.deviation is not None for part in parts):
        return _under_noise(parts, grid, fitted)
    n, positives = sum(part.n for part in parts), sum(part.positives for part in parts)
    if not n:
        return found
    cells = pool([part.cells for part in parts])
    found |= _ranking(parts, cells, grid, draws)
    if grid.threshold_bin is not None:
        found |= confusion_at(cells, grid.threshold_bin, grid.bins).figures
    predicted = sum(part.score_sum for part in parts)
    found["base_rate"] = share_between(positives, positives, positives, n)
    found["mean_predicted"] = exactly(predicted / n)
    for name, total, squares in (
        (
            "brier",
            sum(part.squared_error_sum for part in parts),
            sum(part.squared_error_squares for part in parts),
        ),
        ("log_loss", sum(part.log_loss_sum for part in parts), sum(part.log_loss_squares for part in parts)),
    ):
        variance = max(0.0, squares / n - (total / n) ** 2)
        found[name] = exactly(total / n, math.sqrt(variance / max(n - 1, 1)))
    found["observed_to_expected"] = _observed_to_expected(positives, n, predicted)
    if fitted.slope is not None:
        found["calibration_slope"] = exactly(fitted.slope, fitted.slope_error)
    if fitted.intercept is not None:
        found["calibration_intercept"] = exactly(fitted.intercept, fitted.intercept_error)
    return found


def _under_noise(parts: Sequence[Part], grid: Grid, fitted: Fitted) -> dict[str, Estimate | None]:
    """The same of noisy counts: bounds are those of the counts as they were told, intervals go by how far
    the figures move where stays are drawn and noise is added anew."""
    told = figures([replace(part, deviation=None) for part in parts], grid, fitted, draws=0)
    rng = np.random.default_rng(grid.seed)
    drawn = [
        figures([_drawn(part, grid, rng) for part in parts], grid, Fitted(), draws=0)
        for _ in range(NOISE_DRAWS)
    ]
    return {
        name: None if estimate is None else _moving(name, estimate, [each[name] for each in drawn])
        for name, estimate in told.items()
    }


def _drawn(part: Part, grid: Grid, rng: np.random.Generator) -> Part:
    cells = part.cells
    if part.deviation is not None:
        cells = redrawn(cells, part.deviation, grid.edges, grid.threshold_bin, rng)
    return Part(cells, **sums_of(cells))


def _moving(name: str, told: Estimate, drawn: Sequence[Estimate | None]) -> Estimate:
    values = [each.value for each in drawn if each is not None]
    if len(values) < 2:
        return replace(told, interval=None)
    reach = Z * statistics.stdev(values)
    most = math.inf if name in ("log_loss", "observed_to_expected") else 1.0
    return replace(told, interval=(max(0.0, told.bound[0] - reach), min(most, told.bound[1] + reach)))


def undefined(parts: Sequence[Part]) -> str:
    """Why figures that compare classes are missing; "" where both classes are there."""
    n, positives = sum(part.n for part in parts), sum(part.positives for part in parts)
    if not n:
        return "no stays that may be told"
    if positives in (0, n):
        which = "positive" if positives else "negative"
        return f"all {n} stays are {which}: nothing to tell apart"
    return ""


def auroc_of(parts: Sequence[Part], bins: int) -> Estimate | None:
    """AUROC over all parts; of one part, its own exact one where it was told."""
    if not parts:
        return None
    cells = pool([part.cells for part in parts])
    bounded = auroc_over_sites([(part.cells, part.auroc) for part in parts], bins)
    variance = variance_from_cells(cells, bins)
    if len(parts) == 1 and parts[0].auroc_variance is not None:
        variance = parts[0].auroc_variance
    if bounded is None or variance is None:
        return None
    return auroc_estimate(bounded, variance, cells.total_positives, cells.total_negatives)


def _ranking(parts: Sequence[Part], cells: ScoreCells, grid: Grid, draws: int) -> dict[str, Estimate | None]:
    bins = grid.bins
    bounded = {
        "average_precision": average_precision(cells, bins),
        "min_se_ppv": min_se_ppv(cells, bins),
        "ece": expected_calibration_error(cells, grid.edges),
    }
    centres = {name: figure.estimate for name, figure in bounded.items() if figure is not None}
    exact = parts[0].average_precision if len(parts) == 1 else None
    if exact is not None:
        bounded["average_precision"] = Bounded(exact, exact, exact)
    drawn = drawn_figures([part.cells for part in parts], grid.seed, bins, draws) if draws else {}
    found: dict[str, Estimate | None] = {"auroc": auroc_of(parts, bins)}
    for name, figure in bounded.items():
        if figure is not None:
            empty = np.zeros(0)
            found[name] = with_interval(figure, drawn.get(name, empty), centres[name])
    return found


def _observed_to_expected(positives: int, n: int, predicted: float) -> Estimate | None:
    """Positives over the sum of predictions; the variance of its log is (1 - rate) / positives (Debray et al.
    2017, https://doi.org/10.1136/bmj.i6460). None without positives."""
    if not positives or predicted <= 0:
        return None
    ratio = positives / predicted
    reach = Z * math.sqrt(max(1 - positives / n, 0.0) / positives)
    return Estimate(ratio, (ratio, ratio), (ratio * math.exp(-reach), ratio * math.exp(reach)))
