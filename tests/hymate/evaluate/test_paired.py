"""Two models on the same stays: DeLong's covariance, and what is said of it over sites and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from hymate.evaluate.delong import auroc_and_variance, auroc_difference
from hymate.evaluate.paired import FEWEST, Paired, mean_over_seeds, mean_over_sites, paired_comparison

REDRAWS = 400


def two_models(
    rng: np.random.Generator, n: int, alike: float, gain: float = 0.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two scores; the first has `gain` more signal, the noise of both correlates by `alike`."""
    labels = (rng.random(n) < 0.3).astype(float)
    common = rng.normal(size=n)
    noises = [np.sqrt(alike) * common + np.sqrt(1 - alike) * rng.normal(size=n) for _ in range(2)]
    return labels, labels * (0.8 + gain) + noises[0], labels * 0.8 + noises[1]


def covariance_by_hand(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """DeLong, DeLong & Clarke-Pearson 1988, equations 4 to 6, pair by pair."""

    def components(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        above = np.greater.outer(scores[labels == 1], scores[labels == 0]).astype(float)
        above += 0.5 * np.equal.outer(scores[labels == 1], scores[labels == 0])
        return above.mean(axis=1), above.mean(axis=0)

    (a10, a01), (b10, b01) = components(a), components(b)
    return float(np.cov(a10, b10)[0, 1] / len(a10) + np.cov(a01, b01)[0, 1] / len(a01))


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_variance_is_that_of_delong(alike: float) -> None:
    labels, a, b = two_models(np.random.default_rng(1), 300, alike)
    a, b = np.round(a, 1), np.round(b, 1)  # ties
    one_each = np.arange(300)
    found = auroc_difference(labels, a, b, one_each)
    of_a, of_b = auroc_and_variance(labels, a, one_each), auroc_and_variance(labels, b, one_each)
    assert found is not None
    assert of_a is not None
    assert of_b is not None
    assert found[0] == pytest.approx(of_a[0] - of_b[0], abs=1e-15)
    by_hand = of_a[1] + of_b[1] - 2 * covariance_by_hand(labels, a, b)
    assert found[1] == pytest.approx(by_hand, rel=1e-9)


def test_stays_of_one_subject_are_taken_together() -> None:
    labels, a, b = two_models(np.random.default_rng(2), 200, 0.5)
    twice, a_twice, b_twice = (np.repeat(each, 2) for each in (labels, a, b))
    apart = auroc_difference(twice, a_twice, b_twice, np.arange(400))
    together = auroc_difference(twice, a_twice, b_twice, np.repeat(np.arange(200), 2))
    once = auroc_difference(labels, a, b, np.arange(200))
    assert apart is not None
    assert together is not None
    assert once is not None
    assert together[1] == pytest.approx(once[1], rel=0.02)
    assert apart[1] == pytest.approx(once[1] / 2, rel=0.02)


def test_one_class_has_no_difference_and_a_handful_no_interval() -> None:
    assert auroc_difference(np.ones(9), np.arange(9.0), np.arange(9.0), np.arange(9)) is None
    few, enough = Paired(0.1, 0.001, FEWEST - 1), Paired(0.1, 0.001, FEWEST)
    assert paired_comparison(few) is None
    assert paired_comparison(enough) is not None
    assert mean_over_sites([few]) is None
    assert mean_over_sites([few, enough]) == mean_over_sites([enough])


def test_models_that_rank_alike_do_not_differ() -> None:
    labels, a, _ = two_models(np.random.default_rng(3), 100, 0.5)
    found = auroc_difference(labels, a, 3 * a + 1, np.arange(100))
    assert found == (0.0, 0.0)
    same = paired_comparison(Paired(*found, smaller=30))
    assert same is not None
    assert (same.interval, same.p) == ((0.0, 0.0), 1.0)


def test_a_site_where_both_models_are_nearly_equal_does_not_outweigh_the_others() -> None:
    found = mean_over_sites([Paired(0.0, 1e-8, 40), Paired(0.1, 4e-4, 40)])
    assert found is not None
    assert found.value == pytest.approx(0.05)


def test_intervals_of_the_difference_cover_it() -> None:
    """By site and over three sites of unlike size, in the usual share of redraws."""
    rng = np.random.default_rng(4)
    labels, a, b = two_models(rng, 400_000, 0.7)
    truth = auroc_difference(labels, a, b, np.arange(len(labels)))
    assert truth is not None
    by_site = over_sites = 0
    for _ in range(REDRAWS):
        sites = []
        for n in (60, 150, 400):
            labels, a, b = two_models(rng, n, 0.7)
            found = auroc_difference(labels, a, b, np.arange(n))
            assert found is not None
            sites.append(Paired(*found, smaller=int(min(labels.sum(), n - labels.sum()))))
        one, mean = paired_comparison(sites[0]), mean_over_sites(sites)
        assert one is not None
        assert mean is not None
        assert one.interval[1] is not None
        assert mean.interval[1] is not None
        by_site += one.interval[0] <= truth[0] <= one.interval[1]
        over_sites += mean.interval[0] <= truth[0] <= mean.interval[1]
    for times in (by_site, over_sites):
        assert 0.92 * REDRAWS <= times <= 0.99 * REDRAWS


def test_over_seeds() -> None:
    """Student's interval by hand: 1, 2, 3 has mean 2 and standard error 1 / sqrt(3); t(2, .975) = 4.3027."""
    found = mean_over_seeds([1.0, 2.0, 3.0])
    assert found is not None
    assert list(found.interval) == pytest.approx([2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5])
    assert mean_over_seeds([1.0]) is None
