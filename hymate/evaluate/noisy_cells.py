"""Counts of people by interval of score with noise: one Gaussian mechanism whose unit is the person.

Symbols: T tables (all stays; after them the groups of each attribute or pair), C cells whose bounds are
agreed before anybody looks, 2 classes (positive, negative). Each of a person's m stays counts 1 / m in its
table, cell and class, so a person moves all stays' table by a vector of norm 1 at most, an attribute's
tables together by another: norm sqrt(1 + attributes) in all. To each number normal noise of the multiplier
times that norm is added. Everything else is made of the noisy numbers:

    counts       the nearest that are not negative and have the noisy total (Duchi et al. 2008, fig. 1,
                 https://doi.org/10.1145/1390156.1390191), rounded: what is below zero is not just cut off,
                 which would leave too many people in empty cells
    sums         as if each score lay in the middle of its cell
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hymate.evaluate.edges import WIDEST, first_edges
from hymate.evaluate.histograms import BINS, ScoreCells
from hymate.evaluate.metrics import Sums, log_losses

if TYPE_CHECKING:
    from hymate.data.noisy_statistics import Draw

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CELLS = 10
"""More of them tell the AUROC more closely, and add up more noise."""
CROWDED = 5.0
"""Log odds between which the cells of the first edges lie; the outermost reach to 0 and 1."""


def first_begins() -> Counts:
    """First bin of each cell between `first_edges`, (C,)."""
    inner = np.linspace(-CROWDED, CROWDED, CELLS - 1)
    return np.concatenate([[0], 1 + np.rint((inner + WIDEST) / (2 * WIDEST) * (BINS - 2)).astype(np.int64)])


def agreed_begins(bins: int, threshold_bin: int | None) -> Counts:
    """First bin of each cell between agreed edges, which are quantiles, (C,); one cell begins at the
    operating point."""
    begins = np.arange(CELLS) * bins // CELLS
    return np.unique(begins if threshold_bin is None else np.append(begins, threshold_bin))


def middles(begins: Counts, edges: Floats | None = None) -> Floats:
    """The score in the middle of each cell, (C,); edges: (K - 1,), or the first ones."""
    bounds = np.concatenate([[0.0], first_edges() if edges is None else edges, [1.0]])
    return np.asarray((bounds[begins] + bounds[np.append(begins[1:], len(bounds) - 1)]) / 2)


def norm(attributes: int) -> float:
    """By how much one person may move all numbers."""
    return math.sqrt(1 + attributes)


def people(
    begins: Counts,
    bin_of: Counts,
    labels: Floats,
    subjects: Counts,
    groups: Sequence[tuple[Counts, int]] = (),
) -> Floats:
    """The exact numbers, (T, C, 2).

    Args:
        bin_of, labels, subjects: of each stay, (n,).
        groups: of each attribute, the group of each stay (-1: none), (n,), and how many there are.
    """
    _, who, stays = np.unique(subjects, return_inverse=True, return_counts=True)
    share = 1.0 / stays[who]
    cell, negative = np.searchsorted(begins, bin_of, side="right") - 1, (labels < 0.5).astype(np.int64)
    tables = []
    for group, count in ((np.zeros_like(bin_of), 1), *groups):
        found = np.zeros((count, len(begins), 2))
        known = group >= 0
        np.add.at(found, (group[known], cell[known], negative[known]), share[known])
        tables.append(found)
    return np.concatenate(tables)


def noised(counts: Floats, deviation: float, draw: Draw) -> Counts:
    """The same numbers with noise, (T, C, 2), none negative."""
    noisy = counts + deviation * draw(counts.size).reshape(counts.shape)
    found = np.zeros(counts.shape, np.int64)
    for table, class_ in np.ndindex(counts.shape[0], counts.shape[2]):
        found[table, :, class_] = np.rint(_onto_simplex(noisy[table, :, class_]))
    return found


def cells_of(counts: Counts, begins: Counts, bins: int, middle: Floats) -> ScoreCells:
    """One table's numbers, (C, 2), as cells; those with nobody are left out."""
    used = np.flatnonzero(counts.sum(axis=1))
    last = np.append(begins[1:], bins) - 1
    sums = counts.sum(axis=1) * middle
    return ScoreCells(begins[used], last[used], counts[used, 0], counts[used, 1], sums[used])


def redrawn(
    cells: ScoreCells,
    deviation: float,
    edges: Floats,
    threshold_bin: int | None,
    rng: np.random.Generator,
) -> ScoreCells:
    """What might have been told in place of these cells, between agreed edges, had people and noise been
    drawn anew."""
    begins = agreed_begins(len(edges) + 1, threshold_bin)
    held = spread_over(cells, begins)
    total = held.sum()
    people = rng.multinomial(int(total), held.ravel() / max(total, 1.0)).reshape(held.shape)
    counts = noised(people[None].astype(np.float64), deviation, rng.standard_normal)[0]
    return cells_of(counts, begins, len(edges) + 1, middles(begins, edges))


def spread_over(cells: ScoreCells, begins: Counts) -> Floats:
    """What joined cells hold, evenly over those they were joined from, (C, 2)."""
    found = np.zeros((len(begins), 2))
    first = np.searchsorted(begins, cells.low, side="right") - 1
    last = np.searchsorted(begins, cells.high, side="right") - 1
    for row, (low, high) in enumerate(zip(first, last, strict=True)):
        found[low : high + 1] += np.array([cells.positives[row], cells.negatives[row]]) / (high - low + 1)
    return found


def sums_of(cells: ScoreCells) -> Sums:
    """Over people, as if each score were the mean of its cell."""
    assert cells.score_sum is not None  # `cells_of` gives them
    score = cells.score_sum / (cells.positives + cells.negatives)
    labels = np.repeat([1.0, 0.0], len(score))
    people, scores = np.concatenate([cells.positives, cells.negatives]), np.tile(score, 2)
    errors, losses = np.square(scores - labels), log_losses(labels, scores)
    return {
        "score_sum": float(cells.score_sum.sum()),
        "squared_error_sum": float(people @ errors),
        "squared_error_squares": float(people @ np.square(errors)),
        "log_loss_sum": float(people @ losses),
        "log_loss_squares": float(people @ np.square(losses)),
    }


def _onto_simplex(values: Floats) -> Floats:
    """The nearest numbers that are not negative and have the same sum; zeros where that is negative."""
    total = max(0.0, float(values.sum()))
    falling = np.sort(values)[::-1]
    over = (np.cumsum(falling) - total) / np.arange(1, len(values) + 1)
    return np.asarray(np.maximum(values - over[np.flatnonzero(falling >= over)[-1]], 0.0))
