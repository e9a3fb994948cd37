"""Slope and intercept of the logistic recalibration, fitted over sites that show only sums.

Model: log odds of the label = a + b x, x the log odds of the predicted probability. `slope` is b with a free;
`intercept` is a with b held at 1 ("calibration in the large"; see `hymate.evaluate.calibration`). Newton's
method needs the log likelihood, its gradient and its Hessian at one point: sums over stays, which add over
sites, so the fit equals that on pooled rows. From a start near the solution (the cells give one) two
exchanges suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.calibration import CLOSEST
from hymate.evaluate.histograms import ScoreCells

Floats = NDArray[np.float64]
Kind = Literal["slope", "intercept"]
Point = tuple[float, float]

STEPS = 30
ENOUGH = 1e-5  # of a step taken: the error left after it is of the order of its square
STEEPEST = 50.0
"""No coefficient beyond it is asked for or given: the scores part the classes. A site refuses such a
question: the sum would tell how many stays lie above one score."""


@dataclass(frozen=True)
class Sums:
    """Log likelihood, gradient (2) and information (minus the Hessian; aa, ab, bb) at one (a, b)."""

    likelihood: float
    gradient: tuple[float, float]
    information: tuple[float, float, float]

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.likelihood + other.likelihood,
            (self.gradient[0] + other.gradient[0], self.gradient[1] + other.gradient[1]),
            (
                self.information[0] + other.information[0],
                self.information[1] + other.information[1],
                self.information[2] + other.information[2],
            ),
        )


def log_odds(scores: Floats) -> Floats:
    """Log odds of probabilities, kept `CLOSEST` off 0 and 1."""
    p = np.clip(scores, CLOSEST, 1 - CLOSEST)
    return np.asarray(np.log(p) - np.log1p(-p))


def sums_at(labels: Floats, x: Floats, point: Point, weights: Floats | None = None) -> Sums:
    """The sums over stays with log odds `x`, (n,); `weights`: how often each counts."""
    linear = point[0] + point[1] * x
    w = np.ones_like(x) if weights is None else weights
    fitted = (1 + np.tanh(linear / 2)) / 2
    residual, curvature = w * (labels - fitted), w * fitted * (1 - fitted)
    return Sums(
        float(w @ (labels * linear - np.logaddexp(0.0, linear))),
        (float(residual.sum()), float(residual @ x)),
        (float(curvature.sum()), float(curvature @ x), float(curvature @ (x * x))),
    )


@dataclass(frozen=True)
class Fit:
    """Newton's method on its way: where the sums are wanted next, or the end.

    value and standard_error are those of the kind's own coefficient.
    """

    kind: Kind
    point: Point = (0.0, 1.0)
    step: tuple[float, float] = (math.inf, math.inf)
    likelihood: float = -math.inf
    state: Literal["going", "done", "none"] = "going"
    """none: there is no finite solution."""
    standard_error: float | None = None

    @property
    def value(self) -> float | None:
        if self.state != "done":
            return None
        return self.point[1] if self.kind == "slope" else self.point[0]

    def after(self, sums: Sums) -> Fit:
        """One step further, from the sums at `point`."""
        if self.state != "going":
            return self
        worse = self.likelihood - sums.likelihood
        if math.isfinite(self.likelihood) and worse > 1e-9 * abs(self.likelihood):
            step = (self.step[0] / 2, self.step[1] / 2)  # overshot
            return replace(self, point=(self.point[0] - step[0], self.point[1] - step[1]), step=step)
        step, error = self._newton(sums)
        point = (self.point[0] + step[0], self.point[1] + step[1])
        if not all(map(math.isfinite, point)) or max(map(abs, point)) > STEEPEST:
            return replace(self, state="none")
        done = max(map(abs, step)) < ENOUGH
        return replace(
            self,
            point=point,
            step=step,
            likelihood=sums.likelihood,
            state="done" if done else "going",
            standard_error=error,
        )

    def _newton(self, sums: Sums) -> tuple[tuple[float, float], float]:
        (ga, gb), (aa, ab, bb) = sums.gradient, sums.information
        if self.kind == "intercept":
            return ((ga / aa, 0.0), 1 / math.sqrt(aa)) if aa > 0 else ((math.nan, 0.0), math.nan)
        determinant = aa * bb - ab * ab
        if determinant <= 1e-12 * aa * bb:
            return (math.nan, math.nan), math.nan
        step = ((bb * ga - ab * gb) / determinant, (aa * gb - ab * ga) / determinant)
        return step, math.sqrt(aa / determinant)


def run_fit(fit: Fit, sums: Callable[[Point], Sums]) -> Fit:
    """Newton's method to its end, where the sums are at hand."""
    for _ in range(STEPS):
        if fit.state != "going":
            return fit
        fit = fit.after(sums(fit.point))
    return replace(fit, state="none")


def fit_rows(labels: Floats, scores: Floats, kind: Kind) -> Fit:
    """The fit on rows; a site's own."""
    if not 0 < labels.sum() < len(labels):
        return Fit(kind, state="none")
    x = log_odds(scores)
    return run_fit(Fit(kind), lambda point: sums_at(labels, x, point))


def start_from_cells(sites: Sequence[ScoreCells], kind: Kind) -> Fit:
    """Where to begin: the fit in which every stay has its cell's mean score.

    Its state is `going` again (nothing but rows tells the solution), or `none` where a class is missing or
    the cells have no sums of scores.
    """
    nothing = Fit(kind, state="none")
    with_sums = [cells for cells in sites if cells.score_sum is not None]
    p = sum(cells.total_positives for cells in with_sums)
    n = sum(cells.total_negatives for cells in with_sums)
    if not p or not n:
        return nothing
    counts = np.concatenate([cells.positives + cells.negatives for cells in with_sums]).astype(np.float64)
    positives = np.concatenate([cells.positives for cells in with_sums]).astype(np.float64)
    total = np.concatenate([cells.score_sum for cells in with_sums if cells.score_sum is not None])
    x = log_odds(total / counts)
    rough = run_fit(Fit(kind), lambda point: sums_at(positives / counts, x, point, counts))
    return Fit(kind, rough.point) if rough.state == "done" else Fit(kind)
