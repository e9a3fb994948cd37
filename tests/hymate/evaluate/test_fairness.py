"""Gaps between groups: against fairlearn on pooled rows, and against what was planted."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
from sklearn.metrics import precision_score

from hymate.data.cohort.config import SyntheticConfig
from hymate.data.cohort.figures import expected_auroc
from hymate.data.cohort.write import Cohort
from hymate.evaluate.differences import difference, holm, mean_difference, ratio
from hymate.evaluate.estimates import Estimate, share_between, wilson
from hymate.evaluate.fairness import AttributeFairness, adjusted, attribute_fairness
from hymate.evaluate.federated import Grid, Part
from tests.hymate.evaluate.hospitals import grid_from, part_of, scored

SAMPLES = 200
GROUPS = ("A", "B", "C")


def parts_by_group(
    sites: list[tuple[np.ndarray, np.ndarray, np.ndarray]], grid: Grid, minimum: int = 1
) -> dict[str, list[Part]]:
    """Of sites with labels, scores and groups, (n,) each."""
    return {
        name: [
            part
            for labels, scores, group in sites
            if (part := part_of(labels[group == name], scores[group == name], grid, minimum)) is not None
        ]
        for name in GROUPS
    }


@pytest.mark.parametrize("threshold", [0.2, 0.35])
def test_gaps_are_fairlearns_on_pooled_rows(threshold: float) -> None:
    rng = np.random.default_rng(7)
    sites = []
    for _ in range(4):
        labels, scores = scored(rng, 500, 0.3)
        sites.append((labels, scores, rng.choice(np.array(GROUPS), 500, p=[0.5, 0.3, 0.2])))
    grid = grid_from([(y, s) for y, s, _ in sites], 512, threshold)
    found = attribute_fairness(parts_by_group(sites, grid), grid, {}, draws=0)
    labels, scores, group = (np.concatenate([site[i] for site in sites]) for i in range(3))
    frame = MetricFrame(
        metrics={
            "tpr": true_positive_rate,
            "fpr": false_positive_rate,
            "selection_rate": selection_rate,
            "ppv": precision_score,
            "base_rate": lambda y_true, y_pred: y_true.mean(),
        },
        y_true=labels,
        y_pred=(scores >= threshold).astype(float),
        sensitive_features=group,
    )
    for metric, gap in frame.difference().items():
        mine = found.gaps[metric]
        assert mine.difference.value == pytest.approx(gap, abs=1e-12), metric
        assert mine.difference.bound == (pytest.approx(gap), pytest.approx(gap))
        assert mine.ratio is not None
        assert mine.ratio.value == pytest.approx(frame.ratio()[metric], abs=1e-12)
        assert (mine.highest, mine.lowest) == (
            frame.by_group[metric].idxmax(),
            frame.by_group[metric].idxmin(),
        )
    for name in GROUPS:
        for metric in ("tpr", "fpr", "ppv"):
            estimate = found.groups[name][metric]
            assert estimate is not None
            assert estimate.value == pytest.approx(frame.by_group.loc[name, metric], abs=1e-12)


@cache
def cohort(planted: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per hospital: score, probability that the label is recorded as positive, and ethnicity."""
    disparity = {"label_bias": 0.4} if planted == "label_bias" else {"noise": 8.0}
    made = Cohort(
        SyntheticConfig(
            hospitals=2,
            stays=1200,
            seed=5,
            base="alike",
            tasks=("in_hospital_mortality",),
            disparity={"group": "ETHNICITY//C", **disparity},  # type: ignore[arg-type]
        )
    )
    hospitals = []
    for hospital in made:
        outcome = hospital.outcomes["in_hospital_mortality"]
        group = np.select([hospital.groups[f"ETHNICITY//{name}"] for name in GROUPS], GROUPS, "")
        score = outcome.risk if outcome.observer is None else outcome.observer
        hospitals.append((np.asarray(score), outcome.recorded_risk, group))
    return hospitals


def truth(planted: str, threshold: float) -> dict[str, float]:
    """Group C less the others in everyone the hospitals' patients are drawn from."""
    score, recorded, group = (np.concatenate([each[i] for each in cohort(planted)]) for i in range(3))

    def of(who: np.ndarray) -> dict[str, float]:
        s, r = score[who], recorded[who]
        chosen = s >= threshold
        return {
            "auroc": expected_auroc(s, r),
            "tpr": r[chosen].sum() / r.sum(),
            "fpr": (1 - r)[chosen].sum() / (1 - r).sum(),
            "ppv": r[chosen].mean(),
            "observed_to_expected": r.sum() / s.sum(),
            "base_rate": r.mean(),
        }

    weak, others = of(group == "C"), of(group != "C")
    return {name: weak[name] - others[name] for name in weak}


def sampled(planted: str, rng: np.random.Generator, grid: Grid, stays: int = 700) -> AttributeFairness:
    """The figures of patients drawn anew, with labels drawn anew."""
    sites = []
    for score, recorded, group in cohort(planted):
        rows = rng.integers(0, len(score), stays)
        sites.append(((rng.random(stays) < recorded[rows]).astype(float), score[rows], group[rows]))
    return attribute_fairness(parts_by_group(sites, grid), grid, {}, draws=0)


@pytest.mark.parametrize(
    ("planted", "shows"),
    [("label_bias", ("observed_to_expected", "ppv", "base_rate")), ("noise", ("auroc",))],
)
def test_a_planted_disparity_is_found_and_its_size_covered(planted: str, shows: tuple[str, ...]) -> None:
    threshold = 0.25
    pool = [(recorded > 0.3, score) for score, recorded, _ in cohort(planted)]
    grid = grid_from([(np.asarray(y, float), s) for y, s in pool], 512, threshold)
    true = truth(planted, threshold)
    covered = dict.fromkeys(true, 0)
    seen = dict.fromkeys(true, 0)
    for seed in range(1000, 1000 + SAMPLES):
        against = sampled(planted, np.random.default_rng(seed), grid).against_others["C"]
        for name, value in true.items():
            lower, upper = against[name].interval
            assert upper is not None
            covered[name] += lower <= value <= upper
            seen[name] += not lower <= 0 <= upper
    for name, times in covered.items():  # 0.91 is 2.6 standard errors below 0.95
        assert times >= (0.93 if name in shows else 0.91) * SAMPLES, (name, times)
    assert sum(covered.values()) >= 0.93 * SAMPLES * len(covered)
    for name in shows:
        assert abs(true[name]) > 0.04, "something was planted"
        assert seen[name] >= 0.6 * SAMPLES, (name, seen[name])


def test_a_small_group_has_no_figures_but_is_among_the_others() -> None:
    rng = np.random.default_rng(1)
    labels, scores = scored(rng, 600, 0.3)
    group = np.repeat(np.array(GROUPS), [290, 300, 10])
    grid = grid_from([(labels, scores)], 128, 0.3)
    found = attribute_fairness(parts_by_group([(labels, scores, group)], grid), grid, {}, least=10, draws=0)
    assert set(found.groups["C"].values()) == {None}
    assert found.against_others["C"] == {}
    assert set(found.gaps["tpr"].difference.bound)
    assert {found.gaps["tpr"].highest, found.gaps["tpr"].lowest} == {"A", "B"}
    chosen, away = scores >= 0.3, group != "A"
    expected = chosen[(group == "A") & (labels > 0)].mean() - chosen[away & (labels > 0)].mean()
    assert found.against_others["A"]["tpr"].value == pytest.approx(expected)


def test_two_groups_are_one_test_and_p_values_are_holms() -> None:
    rng = np.random.default_rng(2)
    labels, scores = scored(rng, 600, 0.3)
    group = rng.choice(np.array(GROUPS), 600)
    grid = grid_from([(labels, scores)], 128, 0.3)
    three = attribute_fairness(parts_by_group([(labels, scores, group)], grid), grid, {}, draws=0)
    halves = parts_by_group([(labels, scores, np.where(group == "C", "B", group))], grid)
    two = attribute_fairness({name: halves[name] for name in ("A", "B")}, grid, {}, draws=0)
    found, tests = adjusted({"three": three, "two": two})
    assert tests == 5 * 3 + 5
    a, b = (found["two"].against_others[name]["tpr"] for name in "AB")
    assert a.value == pytest.approx(-b.value)
    assert a.p_adjusted == b.p_adjusted is not None
    assert a.p is not None
    assert a.p_adjusted >= a.p
    assert found["two"].against_others["A"]["base_rate"].p_adjusted is None, "not among the tests"
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_differences_of_shares_are_newcombes() -> None:
    # Newcombe (1998), table II, example (a), method 10: 56/70 and 48/80 differ by 0.0524 to 0.3339.
    a, b = share_between(56, 56, 56, 70), share_between(48, 48, 48, 80)
    assert a is not None
    assert b is not None
    found = difference(a, b)
    assert found is not None
    assert found.interval == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    wider = difference(a, b, comparisons=6)
    assert wider is not None
    assert wider.interval[0] < found.interval[0]
    assert wilson(81, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


def test_bounds_are_added_whole() -> None:
    a, b = Estimate(0.5, (0.4, 0.6), (0.3, 0.7)), Estimate(0.2, (0.15, 0.25), (0.15, 0.25))
    found = difference(a, b)
    assert found is not None
    assert found.bound == (pytest.approx(0.15), pytest.approx(0.45))
    assert found.interval == (pytest.approx(0.05), pytest.approx(0.55))
    assert difference(a, Estimate(0.2, (0.2, 0.2))) is None


def test_a_ratio_to_a_figure_that_may_be_zero_has_no_upper_end() -> None:
    a, b = Estimate(0.2, (0.2, 0.2), (0.1, 0.3)), Estimate(0.1, (0.1, 0.1), (0.0, 0.2))
    found = ratio(a, b)
    assert found is not None
    assert found.interval[1] is None
    assert 0 < found.interval[0] < 2 == pytest.approx(found.value)
    assert ratio(a, Estimate(0.0, (0.0, 0.0), (0.0, 0.1))) is None


def test_the_mean_over_sites_weights_by_certainty() -> None:
    mean = mean_difference([(0.1, 0.01), (0.4, 0.04), (9.0, 0.0)])
    assert mean is not None
    assert mean.value == pytest.approx((0.1 * 100 + 0.4 * 25) / 125)
    assert mean.standard_error == pytest.approx(125**-0.5)
    assert mean_difference([]) is None
