"""Summary features against plain numpy, stay by stay; regression and boosting on a planted signal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.evaluate.metrics import auroc
from hymate.model.baselines.summary import FEATURES, SummaryModel, fit_summary, summary_features
from tests.hymate.train.planted import CODES, planted_store, store_of

Floats = NDArray[np.float64]


def plain(store: TripletStore, row: int) -> Floats:
    """Features of one stay, one variable after the other."""
    here = slice(store.offset[row], store.offset[row + 1])
    rows = []
    for code in range(1, CODES + 1):
        chosen = store.code[here] == code
        time, value = store.time[here][chosen].astype(float), store.value[here][chosen].astype(float)
        if not len(value):
            rows.append([0.0, *[np.nan] * 7])
            continue
        slope = np.polyfit(time, value, 1)[0] if len(value) > 1 else 0.0
        level = [len(value), value.mean(), value.std(), value.min(), value.max()]
        rows.append([*level, value[0], value[-1], slope])
    return np.concatenate([np.array(rows).ravel(), store.static[row]])


def test_features_are_those_of_numpy() -> None:
    store = planted_store(train=20, tuning=0)
    rows = np.array([3, 17, 3, 0])
    found = summary_features(store, rows)
    assert found.shape == (4, len(FEATURES) * CODES + 2)
    for position, row in enumerate(rows):
        np.testing.assert_allclose(found[position], plain(store, row), rtol=1e-6, atol=1e-6)
    assert np.isnan(found).any()  # a variable that was not observed
    assert not np.isnan(found).all(axis=1).any()


def test_equal_times_and_stays_without_observations() -> None:
    store = store_of(
        time=[np.array([]), np.array([5.0, 5.0]), np.array([])],
        code=[np.array([], np.int64), np.array([2, 2]), np.array([], np.int64)],
        value=[np.array([]), np.array([1.0, 4.0]), np.array([])],
        label=np.zeros(3, np.float32),
        split=np.zeros(3, np.int8),
        static=np.arange(6.0).reshape(3, 2),
    )
    found = summary_features(store, np.array([1, 0]))
    assert found[0, 8:16].tolist() == [2.0, 2.5, 1.5, 1.0, 4.0, 1.0, 4.0, 0.0]
    assert found[1, : 8 * CODES : 8].tolist() == [0.0] * CODES
    assert found[:, -2:].tolist() == [[2.0, 3.0], [0.0, 1.0]]
    assert summary_features(store, np.array([0, 2])).shape == (2, 8 * CODES + 2)
    assert summary_features(store, np.array([], np.int64)).shape == (0, 8 * CODES + 2)


@pytest.mark.parametrize("model", ["logistic_regression", "gradient_boosting"])
def test_the_planted_signal_is_found(model: SummaryModel) -> None:
    store = planted_store(train=200, tuning=80)
    rows = store.rows("tuning")
    scores = fit_summary(model, store, store.rows("train")).score(store, rows)
    found = auroc(store.label[rows].astype(np.float64), scores)
    assert found is not None
    assert found > 0.9
    again = fit_summary(model, store, store.rows("train")).score(store, rows)
    assert np.array_equal(scores, again)


def test_unlabelled_stays_are_left_out_and_one_class_is_refused() -> None:
    store = planted_store(train=60, tuning=20)
    label = store.label.copy()
    label[label == 1] = np.nan
    with pytest.raises(InputFault, match="two classes"):
        fit_summary("gradient_boosting", replace(store, label=label), store.rows("train"))
    label = store.label.copy()
    label[::3] = np.nan
    partly = fit_summary("logistic_regression", replace(store, label=label), store.rows("train"))
    without = np.setdiff1d(store.rows("train"), np.arange(0, len(store), 3))
    same = fit_summary("logistic_regression", store, without)
    rows = store.rows("tuning")
    assert np.array_equal(partly.score(store, rows), same.score(store, rows))
