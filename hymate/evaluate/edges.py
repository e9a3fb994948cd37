"""Where the bins of score begin: fixed on tuning stays, the same at all sites.

Bins of equal width waste most of themselves where scores crowd together. Here the K bins are quantiles
of a half-and-half mixture of the classes, which bounds the AUROC's error by 1 / (2 K) on the stays that
set them, and nearly so on others: |error| <= 1/2 sum_k p_k n_k / (P N) <= 1/2 max_k min(p_k / P, n_k / N)
and a bin with share 1 / K of the mixture has p_k / P + n_k / N = 2 / K. The tuning stays are counted
between fixed first edges, equally spaced in log odds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.histograms import BINS, ScoreCells, spread

Floats = NDArray[np.float64]

WIDEST = 10.0
"""Log odds of the outermost first edges: 0.00005 and 0.99995."""
TENTHS = tuple(tenth / 10 for tenth in range(1, 10))
"""Always among the agreed edges: the reliability table's bins."""
DIGITS = 9


def first_edges(bins: int = BINS) -> Floats:
    """Edges for counting tuning stays, (bins - 1,), equally spaced in log odds."""
    return np.asarray(1 / (1 + np.exp(-np.linspace(-WIDEST, WIDEST, bins - 1))))


def agreed_edges(tuning: ScoreCells | None, bins: int = BINS, include: Sequence[float] = ()) -> Floats:
    """At most `bins` - 1 ascending edges: `TENTHS`, `include`, and quantiles of the tuning stays.

    Args:
        tuning: all sites' cells between `first_edges(BINS)`; None, or a class missing: edges of equal width.
        include: further edges to have, such as the operating point.
    """
    fixed = np.array(sorted({*TENTHS, *include}))
    free = bins - 1 - len(fixed)
    if free <= 0:
        fixed, free = np.array(sorted(include)), bins - 1 - len(include)
    ranks = np.arange(1, free + 1) / (free + 1)
    if tuning is None or not tuning.total_positives or not tuning.total_negatives:
        wanted = ranks
    else:
        cumulated = (_rising(tuning, tuning.positives) + _rising(tuning, tuning.negatives)) / 2
        wanted = np.interp(ranks, cumulated, np.concatenate([[0.0], first_edges(), [1.0]]))
    edges = np.unique(np.round(np.concatenate([wanted, fixed]), DIGITS))
    return edges[(edges > 0) & (edges < 1)]


def _rising(cells: ScoreCells, counts: NDArray[np.int64]) -> Floats:
    """Share of `counts` below each of the first edges, from 0 to 1, (BINS + 1,); a trace of slope
    everywhere, so that it can be inverted."""
    shares = spread(cells, counts, BINS)[::-1] / counts.sum() + 1e-9
    rising: Floats = np.concatenate([[0.0], np.cumsum(shares)]) / shares.sum()
    return rising
