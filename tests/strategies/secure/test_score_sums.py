"""The report of all sites out of sums: the same bounds as of the sites' own cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.evaluate.histograms import (
    ScoreCells,
    auroc,
    average_precision,
    count_between,
    join_small_cells,
    pool,
)
from hymate.evaluate.metrics import SUMS
from hymate.evaluate.metrics import auroc as exact_auroc
from hymate.evaluate.metrics import average_precision as exact_precision
from hymate.evaluate.operating_point import confusion_at
from hymate.score_reports import Cells, ScoreReport
from strategies.secure.ring import OutOfBounds
from strategies.secure.score_sums import numbers_of, report_of, size_of

BINS = 24
EDGES = np.arange(1, BINS) / BINS
THRESHOLD = 9


def _site(seed: int, stays: int, minimum: int) -> tuple[np.ndarray, np.ndarray, ScoreCells | None]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(stays) < 0.4).astype(np.float64)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0.0, 1.0)
    return labels, scores, join_small_cells(count_between(labels, scores, EDGES), minimum, (THRESHOLD,))


def _report(labels: np.ndarray, scores: np.ndarray, cells: ScoreCells | None) -> ScoreReport:
    if cells is None:
        return ScoreReport(n=labels.size, positives=None)
    sums = {name: float(scores.sum()) * (i + 1) for i, name in enumerate(SUMS)}
    content = {"n": labels.size, "positives": int(labels.sum()), "cells": Cells.of(cells, sums=True), **sums}
    return ScoreReport.model_validate(content)


@settings(max_examples=80, deadline=None)
@given(sites=st.integers(1, 5), minimum=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_bounds_are_those_of_the_sites_own_cells(sites: int, minimum: int, seed: int) -> None:
    found = [_site(seed + i, 20 + 13 * i, minimum) for i in range(sites)]
    told = [each for each in found if each[2] is not None]
    numbers = sum((numbers_of(_report(*each), BINS) for each in found), start=np.zeros(size_of(BINS)))
    report = report_of(numbers, BINS)
    if not told:
        assert report == ScoreReport(n=None, positives=None)
        return
    cells = pool([each[2] for each in told if each[2] is not None])
    assert report.cells is not None
    summed = report.cells.arrays()
    assert (report.n, report.positives) == (sum(e[0].size for e in told), cells.total_positives)
    ours, theirs = auroc(summed, BINS), auroc(cells, BINS)
    assert (ours is None) == (theirs is None)
    if ours is None or theirs is None:
        return
    np.testing.assert_allclose(
        (ours.estimate, ours.lower, ours.upper), (theirs.estimate, theirs.lower, theirs.upper), rtol=1e-12
    )
    labels, scores = (np.concatenate([each[i] for each in told]) for i in (0, 1))
    exact = exact_auroc(labels, scores)
    assert exact is not None
    assert ours.lower - 1e-12 <= exact <= ours.upper + 1e-12
    precision, own = average_precision(summed, BINS), average_precision(cells, BINS)
    true = exact_precision(labels, scores)
    assert precision is not None
    assert own is not None
    assert true is not None
    assert precision.lower == pytest.approx(own.lower)
    assert precision.upper >= own.upper - 1e-12
    assert precision.lower - 1e-12 <= true <= precision.upper + 1e-12


def test_sums_add_up_and_no_number_is_below_the_minimum() -> None:
    minimum = 4
    found = [_site(seed, 90, minimum) for seed in range(3)]
    reports = [_report(*each) for each in found]
    total = sum((numbers_of(report, BINS) for report in reports), start=np.zeros(size_of(BINS)))
    counts = total[: 4 * BINS]
    assert set(np.flatnonzero((counts > 0) & (counts < minimum))) == set()
    report = report_of(total, BINS)
    for name in SUMS:
        assert getattr(report, name) == pytest.approx(sum(getattr(each, name) for each in reports))
    assert report.auroc is None
    assert report.own_fit is None
    assert report.groups == {}


def test_numbers_that_no_sites_have() -> None:
    total = numbers_of(_report(*_site(1, 90, 3)), BINS)
    for place, added in ((0, -200.0), (0, 1.0), (2 * BINS, 1.0)):
        spoilt = total.copy()
        spoilt[place] += added
        with pytest.raises(OutOfBounds, match="no counts of stays"):
            report_of(spoilt, BINS)


def test_an_edge_at_which_every_site_begins_a_cell_stays_one() -> None:
    found = [_site(seed, 200, 3) for seed in range(3)]
    cells = pool([each[2] for each in found if each[2] is not None])
    total = sum((numbers_of(_report(*each), BINS) for each in found), start=np.zeros(size_of(BINS)))
    report = report_of(total, BINS)
    assert report.cells is not None
    assert confusion_at(report.cells.arrays(), THRESHOLD, BINS) == confusion_at(cells, THRESHOLD, BINS)
    labels, scores = (np.concatenate([each[i] for each in found]) for i in (0, 1))
    alarms = scores >= EDGES[THRESHOLD - 1]
    tpr = confusion_at(report.cells.arrays(), THRESHOLD, BINS).figures["tpr"]
    assert tpr is not None
    assert tpr.value == pytest.approx(alarms[labels > 0.5].mean())
