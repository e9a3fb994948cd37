"""Logistic regression and gradient boosting on eight summary features per variable: the bar to pass.

Of every variable in a stay's window (values are the store's z-scores, times hours):

    count                 observations
    mean, std, min, max   of the values; std divides by the count, 0 for a single observation
    first, last           value of the earliest and of the latest observation
    slope                 least-squares slope of value over time, per hour; 0 where no time passes

A variable without observations has count 0 and NaN elsewhere: boosting learns a branch for it, the
regression gets the training mean, and the count tells. The demographics follow as the store has them.

Boosting is scikit-learn's histogram implementation of Friedman, "Greedy function approximation",
Ann. Stat. 2001 (https://scikit-learn.org/stable/modules/ensemble.html#histogram-based-gradient-boosting).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hymate.data.store import TripletStore
from hymate.errors import InputFault

SummaryModel = Literal["logistic_regression", "gradient_boosting"]
FEATURES = ("count", "mean", "std", "min", "max", "first", "last", "slope")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SummaryClassifier:
    """A fitted model; `estimator` is scikit-learn's."""

    estimator: Any

    def score(self, store: TripletStore, rows: Ints) -> Floats:
        """Probability of the label for each of `rows`, in their order."""
        scores: Floats = self.estimator.predict_proba(summary_features(store, rows))[:, 1]
        return scores


def fit_summary(model: SummaryModel, store: TripletStore, rows: Ints, *, seed: int = 0) -> SummaryClassifier:
    """Fit on the labelled stays among `rows`; the same seed gives the same scores.

    Raises `InputFault` where these have one class only.
    """
    rows = rows[~np.isnan(store.label[rows])]
    labels = store.label[rows]
    if len(np.unique(labels)) != 2:
        raise InputFault(
            store.path, f"{len(rows)} labelled stays of fewer than two classes", "train on others"
        )
    estimator = _boosting(seed) if model == "gradient_boosting" else _regression()
    return SummaryClassifier(estimator.fit(summary_features(store, rows), labels))


def summary_features(store: TripletStore, rows: Ints) -> Floats:
    """-> (N, 8 V + S): `FEATURES` of vocabulary index 1, those of index 2, ..., then the demographics."""
    codes, length = store.header.codes, store.lengths[rows]
    at = np.arange(length.sum()) + np.repeat(store.offset[rows] - (np.cumsum(length) - length), length)
    cell = np.repeat(np.arange(len(rows)), length) * codes + store.code[at] - 1
    at = at[np.argsort(cell, kind="stable")]  # stable: by time within a cell
    count = np.bincount(cell, minlength=len(rows) * codes)
    features = np.full((len(rows) * codes, len(FEATURES)), np.nan)
    features[:, 0] = count
    measured = count > 0
    if measured.any():
        features[measured, 1:] = _of_cells(
            store.time[at].astype(np.float64), store.value[at].astype(np.float64), count[measured]
        )
    return np.concatenate([features.reshape(len(rows), codes * len(FEATURES)), store.static[rows]], axis=1)


def _of_cells(time: Floats, value: Floats, count: Ints) -> Floats:
    """Values of one cell after the other, `count` of each (>= 1), ascending in time -> (cells, 7)."""
    begin = np.cumsum(count) - count

    def mean(x: Floats) -> Floats:
        result: Floats = np.add.reduceat(x, begin) / count
        return result

    level = mean(value)
    above, later = value - np.repeat(level, count), time - np.repeat(mean(time), count)
    spread = mean(later * later)
    # Times are rounded to float32: what is left of equal times is no time.
    slope = np.divide(mean(above * later), spread, out=np.zeros_like(spread), where=spread > 1e-9)
    return np.stack(
        [
            level,
            np.sqrt(mean(above * above)),
            np.minimum.reduceat(value, begin),
            np.maximum.reduceat(value, begin),
            value[begin],
            value[begin + count - 1],
            slope,
        ],
        axis=1,
    )


def _boosting(seed: int) -> Any:
    return HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=300,
        max_leaf_nodes=15,
        min_samples_leaf=20,
        l2_regularization=1.0,
        random_state=seed,
    )


def _regression() -> Any:
    # 300 features of which most are copies of each other for 6,000 stays: a strong ridge.
    return make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000)
    )
