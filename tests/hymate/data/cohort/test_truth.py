"""The truth is true: risks, what they can reach, and what an observer of the record can."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from hymate.data.cohort.config import TASKS, Task
from hymate.data.cohort.figures import auroc_error, bayes_auroc, expected_auroc
from hymate.data.cohort.hospital import Hospital
from hymate.data.synthetic import Cohort
from tests.hymate.data.cohort.made import LENGTH, MORTALITY, config, dynamic, hospitals, together

BINARY = [task for task in TASKS if task != LENGTH]


@pytest.fixture(scope="module")
def everything() -> list[Hospital]:
    return hospitals(hospitals=3, stays=1200, tasks=TASKS, signals={LENGTH: 3.0})


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    return Cohort(
        config(hospitals=3, stays=1200, tasks=TASKS, signals={LENGTH: 3.0}, decoys=1, demographics="full")
    ).truth()


@pytest.mark.parametrize("task", BINARY)
def test_labels_follow_the_true_risk(everything: list[Hospital], truth: dict[str, Any], task: Task) -> None:
    risk, label = together(everything, task, "risk"), together(everything, task, "label")
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        inside = (risk >= low) & (risk < high)
        if inside.sum() > 100:
            assert label[inside].mean() == pytest.approx(risk[inside].mean(), abs=0.07)
    told = truth["tasks"][task]
    assert told["base_rate"] == pytest.approx(label.mean(), abs=0.03)
    assert told["bayes_auroc"] == pytest.approx(roc_auc_score(label, risk), abs=0.025)
    assert 0.75 < told["bayes_auroc"] < 0.95
    for name in ("hospital_1", "hospital_3"):
        site = truth["sites"][name]["tasks"][task]
        assert site["bayes_auroc"] == pytest.approx(told["bayes_auroc"], abs=0.05)
        assert 0 < told["bayes_auroc_standard_error"] < site["bayes_auroc_standard_error"] < 0.02


def test_length_of_stay_and_long_stay_are_one_story(
    everything: list[Hospital], truth: dict[str, Any]
) -> None:
    expected, days = together(everything, LENGTH, "risk"), together(everything, LENGTH, "happened")
    halves = expected > np.median(expected)
    for half in (halves, ~halves):
        assert days[half].mean() == pytest.approx(expected[half].mean(), rel=0.06)
    assert truth["tasks"][LENGTH]["bayes_rmse_days"] < 0.9 * days.std()
    for hospital in everything:
        written = hospital.labels[LENGTH]["float_value"].to_numpy()
        assert (hospital.labels["long_stay"]["boolean_value"].to_numpy() == (written > 5.0)).all()


def test_nobody_who_died_is_asked_for_readmission(everything: list[Hospital]) -> None:
    for hospital in everything:
        asked = set(hospital.labels["readmission_30d"]["subject_id"])
        assert asked == set(hospital.subjects[~hospital.died].tolist())


def test_without_signal_no_task_can_be_learned() -> None:
    told = Cohort(config(tasks=TASKS, signal=0.0, decoys=1)).truth()
    for task in BINARY:
        assert told["tasks"][task]["bayes_auroc"] == 0.5
        assert told["tasks"][task]["signal_in"]["important"] == []
        assert {"HR", "DECOY//1"} <= set(told["tasks"][task]["signal_in"]["none"])
    for hospital in hospitals(tasks=TASKS, signal=0.0):
        assert np.ptp(hospital.outcomes[LENGTH].risk) == 0


def test_the_error_of_the_bayes_auroc_is_its_spread_over_cohorts() -> None:
    rng = np.random.default_rng(0)
    draws = [1 / (1 + np.exp(-rng.normal(-1, 1.5, 400))) for _ in range(300)]
    spread = np.std([bayes_auroc(risk) for risk in draws])
    assert np.mean([auroc_error(risk, risk) for risk in draws]) == pytest.approx(spread, rel=0.15)
    blurred = [(np.log(risk) + rng.normal(0, 1, 400), risk) for risk in draws]
    spread = np.std([expected_auroc(*pair) for pair in blurred])
    assert np.mean([auroc_error(*pair) for pair in blurred]) == pytest.approx(spread, rel=0.15)


def test_expected_auroc_of_a_score_is_the_mean_over_labels() -> None:
    rng = np.random.default_rng(1)
    risk = rng.random(400)
    score = np.round(risk + rng.normal(0, 0.3, 400), 1)  # with ties
    drawn = [roc_auc_score(rng.random(400) < risk, score) for _ in range(300)]
    assert expected_auroc(score, risk) == pytest.approx(np.mean(drawn), abs=0.006)


def marker_features(hospital: Hospital) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Per stay: what a bag of the marker's values tells, and the slope that its order tells."""
    readings = dynamic(hospital).filter(pl.col("code") == "Marker")
    minutes = (pl.col("time") - pl.col("time").min()).dt.total_minutes()
    value = pl.col("numeric_value")
    told = readings.group_by("subject_id").agg(
        pl.len(),
        value.mean().alias("mean"),
        value.std().fill_null(0.0).alias("sd"),
        value.min().alias("min"),
        value.max().alias("max"),
        value.median().alias("median"),
        value.skew().fill_null(0.0).fill_nan(0.0).alias("skew"),
        pl.cov(value, minutes).fill_null(0.0).alias("slope"),
    )
    subjects = pl.DataFrame({"subject_id": hospital.subjects})
    told = subjects.join(told, on="subject_id", how="left", maintain_order="left").fill_null(0.0)
    return told.drop("subject_id", "slope").to_numpy(), told["slope"].to_numpy()


def test_only_the_order_of_the_marker_tells_of_deterioration(everything: list[Hospital]) -> None:
    first, *rest = everything
    label = first.labels["deterioration"]["boolean_value"].to_numpy()
    bag, slope = marker_features(first)
    assert roc_auc_score(label, slope) > 0.75
    learner = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    train = [marker_features(hospital)[0] for hospital in rest]
    targets = [hospital.labels["deterioration"]["boolean_value"].to_numpy() for hospital in rest]
    learner.fit(np.concatenate(train), np.concatenate(targets))
    assert roc_auc_score(label, learner.predict_proba(bag)[:, 1]) == pytest.approx(0.5, abs=0.06)


def test_codes_that_matter_are_named(truth: dict[str, Any]) -> None:
    found = {task: truth["tasks"][task]["signal_in"] for task in TASKS}
    assert found["deterioration"]["important"] == ["Marker"]
    assert found["phenotype_kidney_injury"]["important"][:2] == ["Creatinine", "BUN"]
    assert set(found["phenotype_respiratory_failure"]["important"][:2]) == {"RR", "SpO2"}
    assert found["phenotype_sepsis"]["important"][0] == "Temp"
    for task in get_args(Task):
        assert "DECOY//1" in found[task]["none"]
        assert ("Marker" in found[task]["none"]) == (task != "deterioration")


def test_the_named_correlations_are_those_of_a_last_reading() -> None:
    told = Cohort(config()).truth()["tasks"][MORTALITY]["signal_in"]["codes"]
    made = hospitals(hospitals=1, stays=4000)[0]
    score = np.log(made.risk / (1 - made.risk))
    for code in ("Lactate", "RR", "Creatinine", "Na"):
        late = pl.col("prediction_time") - pl.col("time") < pl.duration(hours=4)
        rows = dynamic(made).filter(pl.col("code") == code)
        rows = rows.join(made.labels[MORTALITY], on="subject_id").filter(late)
        last = rows.group_by("subject_id").agg(pl.col("numeric_value").last()).sort("subject_id")
        whose = np.searchsorted(made.subjects, last["subject_id"].to_numpy())
        seen = float(np.corrcoef(last["numeric_value"].to_numpy(), score[whose])[0, 1])
        assert seen == pytest.approx(told[code], abs=0.12)


def test_the_observer_is_calibrated_and_between_chance_and_truth() -> None:
    made = hospitals(hospitals=1, stays=1500, tasks=[MORTALITY, LENGTH, "deterioration"], observer=True)[0]
    for task in (MORTALITY, "deterioration"):
        outcome = made.outcomes[task]
        seen = outcome.observer
        assert seen is not None
        edges = np.quantile(seen, [0, 0.25, 0.5, 0.75, 1])
        for low, high in pairwise(edges):
            inside = (seen >= low) & (seen <= high)
            assert outcome.risk[inside].mean() == pytest.approx(seen[inside].mean(), abs=0.035)
        # Too sure of itself, it would spread its risks wider than the truth warrants: a slope below 1.
        slope = np.cov(outcome.risk, seen)[0, 1] / seen.var(ddof=1)
        assert slope == pytest.approx(1.0, abs=0.035)
        assert 0.75 < expected_auroc(seen, outcome.risk) < bayes_auroc(outcome.risk) - 0.01
    length = made.outcomes[LENGTH]
    assert length.observer is not None
    assert length.observer.mean() == pytest.approx(length.risk.mean(), rel=0.02)


@pytest.mark.parametrize(
    "switch", [{"noise": 5.0}, {"missing": 0.85}], ids=["measured less precisely", "measured less often"]
)
def test_a_weakened_signal_widens_the_expected_gap(switch: dict[str, float]) -> None:
    group = "GENDER//F"
    asked: dict[str, Any] = {"hospitals": 2, "stays": 500, "tasks": [MORTALITY]}
    plain = Cohort(config(**asked, observer=True)).truth()["tasks"][MORTALITY]["groups"]
    weak = Cohort(config(**asked, disparity={"group": group, **switch})).truth()
    (planted,) = weak["weak_groups"]
    gap = planted["expected_gap"][MORTALITY]["observer_auroc"]
    usual = plain["GENDER//M"]["observer_auroc"] - plain[group]["observer_auroc"]
    assert gap > usual + 0.025
    groups = weak["tasks"][MORTALITY]["groups"]
    assert gap == pytest.approx(
        groups["GENDER//M"]["observer_auroc"] - groups[group]["observer_auroc"], abs=1e-3
    )
    assert groups[group]["bayes_auroc"] == plain[group]["bayes_auroc"]  # the risk itself is the same


def test_label_bias_states_the_gap_in_recorded_rates() -> None:
    group = "ETHNICITY//A"
    told = Cohort(config(stays=800, disparity={"group": group, "label_bias": 0.5})).truth()
    figures = told["tasks"][MORTALITY]["groups"][group]
    assert figures["recorded_rate"] == pytest.approx(0.5 * figures["base_rate"], abs=1e-3)
    (planted,) = told["weak_groups"]
    assert planted["expected_gap"][MORTALITY]["recorded_rate"] > 0.08
    assert abs(planted["expected_gap"][MORTALITY]["base_rate"]) < 0.04
    assert "recorded_rate" not in told["tasks"][LENGTH]
