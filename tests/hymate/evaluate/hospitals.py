"""Made-up scores of several sites, and what the sites would tell of them."""

from __future__ import annotations

import numpy as np

from hymate.evaluate.delong import auroc_and_variance
from hymate.evaluate.edges import TENTHS, agreed_edges, first_edges
from hymate.evaluate.federated import Grid, Part
from hymate.evaluate.histograms import count_between, join_small_cells, pool
from hymate.evaluate.metrics import average_precision, sums_over

Arrays = tuple[np.ndarray, np.ndarray]


def scored(rng: np.random.Generator, n: int, prevalence: float, ties: int | None = None) -> Arrays:
    """Labels and scores, (n,) each, that say something of each other; `ties`: digits that are left."""
    labels = (rng.random(n) < prevalence).astype(np.float64)
    labels[:2] = [0.0, 1.0]
    centre = np.log(prevalence / (1 - prevalence))
    scores = 1 / (1 + np.exp(-rng.normal(centre - 0.3 + labels, 1.0)))
    return labels, scores if ties is None else np.round(scores, ties)


def grid_from(tuning: list[Arrays], bins: int, threshold: float | None = None, minimum: int = 1) -> Grid:
    """Edges agreed on these sites' tuning stays."""
    cells = [join_small_cells(count_between(y, s, first_edges()), minimum) for y, s in tuning]
    told = [each for each in cells if each is not None]
    include = () if threshold is None else (threshold,)
    return Grid(agreed_edges(pool(told) if told else None, bins, include), threshold)


def part_of(labels: np.ndarray, scores: np.ndarray, grid: Grid, minimum: int = 1) -> Part | None:
    """What a site tells of its stays."""
    wanted = [*([] if grid.threshold is None else [grid.threshold]), *TENTHS]
    apart = [int(np.searchsorted(grid.edges, edge, side="right")) for edge in wanted]
    cells = join_small_cells(count_between(labels, scores, grid.edges), minimum, apart)
    if cells is None:
        return None
    own = auroc_and_variance(labels, scores, np.arange(len(labels)))
    return Part(
        cells=cells,
        **sums_over(labels, scores),
        auroc=None if own is None else own[0],
        auroc_variance=None if own is None else own[1],
        average_precision=average_precision(labels, scores),
    )
