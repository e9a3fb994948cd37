"""Ranking figures equal scikit-learn's, whatever the ties and weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from hymate.evaluate.ranking import Ranking


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 60), levels=st.integers(1, 30))
def test_equal_to_scikit_learn(seed: int, count: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, count) / 7
    labels = np.r_[0.0, 1.0, rng.integers(0, 2, count - 2)]
    weights = np.stack([np.ones(count), np.r_[1, 1, rng.integers(0, 4, count - 2)]])
    found = Ranking(labels, scores).figures(weights)
    for i, weight in enumerate(weights):
        used = weight > 0
        y, s, w = labels[used], scores[used], weight[used]
        precision, recall, _ = precision_recall_curve(y, s, sample_weight=w)
        expected = {
            "auroc": roc_auc_score(y, s, sample_weight=w),
            "average_precision": average_precision_score(y, s, sample_weight=w),
            "auprc_trapezoid": auc(recall, precision),
            "min_se_ppv": np.minimum(precision, recall).max(),
        }
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


def test_a_class_without_weight_has_no_figure() -> None:
    found = Ranking(np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.1])).figures(
        np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 2.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    )
    for name, values in found.items():
        assert np.isfinite(values[0]), name
        assert np.isnan(values[1:]).all(), name


def test_both_areas_differ_where_precision_jumps() -> None:
    """Negatives first: average precision takes the step, the trapezoid cuts the corner."""
    found = Ranking(np.array([0.0, 1.0]), np.array([0.9, 0.1])).figures(np.ones((1, 2)))
    assert found["average_precision"][0] == 0.5
    assert found["auprc_trapezoid"][0] == 0.25
    assert found["auroc"][0] == 0.0
