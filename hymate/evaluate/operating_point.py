"""Sensitivity, specificity and predictive values at a threshold, and which threshold to work at.

At an edge of the bins, where no site joined cells across it, these are exact; elsewhere what lies in a cell
around the threshold is undecided and the figures carry a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hymate.evaluate.edges import first_edges
from hymate.evaluate.estimates import Estimate, share_between, wilson
from hymate.evaluate.histograms import BINS, Bounded, Counts, ScoreCells, highest_counts, spread

Rule = Literal["sensitivity", "specificity", "youden", "min_se_ppv"]


@dataclass(frozen=True)
class Flagged:
    """How many stays of one class have a score at or above a threshold: surely, probably, at most; of all."""

    low: float
    middle: float
    high: float
    total: int

    @property
    def share(self) -> Estimate | None:
        """Sensitivity for positives, false positive rate for negatives; None where there are none."""
        return share_between(self.low, self.middle, self.high, self.total)

    @property
    def complement(self) -> Flagged:
        """Those below the threshold."""
        return Flagged(self.total - self.high, self.total - self.middle, self.total - self.low, self.total)


@dataclass(frozen=True)
class Confusion:
    """Positives and negatives at or above a threshold."""

    positives: Flagged
    negatives: Flagged

    @property
    def figures(self) -> dict[str, Estimate | None]:
        """tpr (sensitivity), fpr, specificity, ppv, npv, selection_rate; None without trials."""
        p, n = self.positives, self.negatives
        chosen = Flagged(p.low + n.low, p.middle + n.middle, p.high + n.high, p.total + n.total)
        return {
            "tpr": p.share,
            "fpr": n.share,
            "specificity": n.complement.share,
            "ppv": _predictive(p, n),
            "npv": _predictive(n.complement, p.complement),
            "selection_rate": chosen.share,
        }


def confusion_at(cells: ScoreCells, bin_: int, bins: int) -> Confusion:
    """What lies in `bin_` or higher, that is at or above its lower edge."""
    return Confusion(
        _flagged(cells, cells.positives, bin_, bins), _flagged(cells, cells.negatives, bin_, bins)
    )


def _flagged(cells: ScoreCells, counts: Counts, bin_: int, bins: int) -> Flagged:
    width = cells.high - cells.low + 1
    inside = np.clip(cells.high - bin_ + 1, 0, width) / width
    return Flagged(
        float(counts[cells.low >= bin_].sum()),
        float((counts * inside).sum()),
        float(counts[cells.high >= bin_].sum()),
        int(counts.sum()),
    )


def _predictive(right: Flagged, wrong: Flagged) -> Estimate | None:
    """Share of `right` among all flagged: lowest where few of `right` and many of `wrong` are."""
    if right.middle + wrong.middle <= 0:
        return None
    fewest, most = right.low + wrong.high, right.high + wrong.low
    if fewest <= 0 or most <= 0:
        return None
    return Estimate(
        right.middle / (right.middle + wrong.middle),
        (right.low / fewest, right.high / most),
        (wilson(right.low, fewest)[0], wilson(right.high, most)[1]),
    )


def min_se_ppv(cells: ScoreCells, bins: int = BINS) -> Bounded | None:
    """Largest over thresholds of min(sensitivity, predictive value), with its proven interval.

    Upper: at a threshold inside bin b at most the positives that may lie in b or higher are found, and at
    least the negatives that surely lie higher. Lower: the thresholds at the edges.
    """
    total = cells.total_positives
    if not total or not cells.total_negatives:
        return None
    most, fewest_false = highest_counts(cells, bins)
    sure, possible_false = np.zeros(bins), np.zeros(bins)
    np.add.at(sure, cells.low, cells.positives)
    np.add.at(possible_false, cells.high, cells.negatives)
    sure, possible_false = np.cumsum(sure[::-1])[::-1], np.cumsum(possible_false[::-1])[::-1]
    upper = _best_of(most, fewest_false, total)
    lower = _best_of(sure, possible_false, total)
    middle = _best_of(
        np.cumsum(spread(cells, cells.positives, bins)),
        np.cumsum(spread(cells, cells.negatives, bins)),
        total,
    )
    return Bounded(min(max(middle, lower), upper), lower, upper)


def _best_of(tp: np.ndarray, fp: np.ndarray, total: int) -> float:
    with np.errstate(invalid="ignore"):
        precision = np.where(tp > 0, tp / (tp + fp), 0.0)
    return float(np.minimum(tp / total, precision).max())


def threshold_on(tuning: ScoreCells, rule: Rule, target: float | None) -> float | None:
    """The threshold that the rule asks for on tuning stays counted between `first_edges()`.

    Args:
        target: the sensitivity or specificity to reach, for those rules.

    Returns:
        None where a class is missing.
    """
    if not tuning.total_positives or not tuning.total_negatives:
        return None
    places = np.concatenate([[0.0], first_edges(), [1.0]])
    tp = np.concatenate([[0.0], np.cumsum(spread(tuning, tuning.positives, BINS))])[::-1]
    fp = np.concatenate([[0.0], np.cumsum(spread(tuning, tuning.negatives, BINS))])[::-1]
    se, fpr = tp / tp[0], fp / fp[0]  # at each of `places`, falling from 1 to 0
    if rule == "sensitivity":
        assert target is not None
        place = int(np.flatnonzero(se >= target - 1e-12)[-1])
    elif rule == "specificity":
        assert target is not None
        place = int(np.flatnonzero(1 - fpr >= target - 1e-12)[0])
    elif rule == "youden":
        place = int(np.argmax(se - fpr))
    else:
        with np.errstate(invalid="ignore"):
            precision = np.where(tp + fp > 0, tp / (tp + fp), 0.0)
        place = int(np.argmax(np.minimum(se, precision)))
    return round(float(np.clip(places[place], places[1], places[-2])), 9)
