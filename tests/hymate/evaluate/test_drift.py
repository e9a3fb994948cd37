"""A planted shift between hospitals is found and its size covered: of what is measured, of the label, and of
what a model from elsewhere loses. Patients and labels are drawn anew; what was planted stays."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hymate.data.cohort.config import SyntheticConfig, Task
from hymate.data.cohort.figures import expected_auroc
from hymate.data.cohort.hospital import Hospital
from hymate.data.cohort.write import Cohort
from hymate.data.statistics import CodeStatistics
from hymate.evaluate.delong import auroc_difference
from hymate.evaluate.differences import Comparison, difference
from hymate.evaluate.drift import LARGE, share_difference, standardised_difference
from hymate.evaluate.estimates import share_between
from hymate.evaluate.paired import Paired, paired_comparison

POPULATION, REDRAWS, STAYS = 1500, 200, 300
TASK: Task = "in_hospital_mortality"
Arrays = np.ndarray


@cache
def hospitals(planted: str, strength: float) -> list[Hospital]:
    """Three, each so large that its patients are those who could be drawn."""
    config = {"hospitals": 3, "stays": POPULATION, "seed": 3, "base": "alike", planted: strength}
    return list(Cohort(SyntheticConfig.model_validate(config)))


class Recorded:
    """What was measured at a hospital: occurrences, sum and sum of squares, (patients, codes) each."""

    def __init__(self, hospital: Hospital) -> None:
        measured = pl.col("time").is_not_null() & pl.col("numeric_value").is_finite()
        events = hospital.events.filter(measured).sort("code", maintain_order=True)
        self.codes = events["code"].unique().sort().to_list()
        who = np.searchsorted(hospital.subjects, events["subject_id"].to_numpy())
        which = np.searchsorted(np.array(self.codes), events["code"].to_numpy().astype(str))
        value = events["numeric_value"].to_numpy().astype(np.float64)
        self.n, self.total, self.squares = np.zeros((3, len(hospital.subjects), len(self.codes)))
        for table, added in ((self.n, np.ones_like(value)), (self.total, value), (self.squares, value**2)):
            np.add.at(table, (who, which), added)

    def statistics(self, rows: Arrays) -> list[CodeStatistics]:
        """What a hospital of these patients would tell; one drawn twice is two people."""
        n, total, squares = (table[rows].sum(axis=0) for table in (self.n, self.total, self.squares))
        people = (self.n[rows] > 0).sum(axis=0)
        return [
            CodeStatistics(
                code=code,
                unit="",
                count=int(n[i]),
                numeric=int(n[i]),
                subjects=int(people[i]),
                numeric_subjects=int(people[i]),
                mean=total[i] / n[i],
                m2=squares[i] - total[i] ** 2 / n[i],
            )
            for i, code in enumerate(self.codes)
        ]

    def means(self) -> Arrays:
        """Mean value by patient and code, the hospital's own where there is none; and how often, in logs."""
        mean = self.total / np.maximum(self.n, 1)
        filled = np.where(self.n > 0, mean, self.total.sum(axis=0) / self.n.sum(axis=0))
        return np.concatenate([filled, np.log1p(self.n)], axis=1)


def test_a_planted_shift_of_what_is_measured() -> None:
    records = [Recorded(each) for each in hospitals("covariate_shift", 1.0)]
    codes = records[0].codes

    def drift(drawn: list[Arrays]) -> list[tuple[float, tuple[float, float]]]:
        here, *others = (of.statistics(rows) for of, rows in zip(records, drawn, strict=True))
        found = []
        for own, *theirs in zip(here, *others, strict=True):
            one = standardised_difference(own, theirs[0].merged(theirs[1]))
            assert one is not None
            assert one.interval is not None
            found.append((one.value, one.interval))
        return found

    truth = np.array([value for value, _ in drift([np.arange(POPULATION)] * 3)])
    shifted = np.abs(truth) >= LARGE
    assert shifted.sum() >= 5
    covered, seen = np.zeros((2, len(codes)))
    rng = np.random.default_rng(11)
    for _ in range(REDRAWS):
        for i, (_, (low, high)) in enumerate(drift([rng.integers(0, POPULATION, STAYS) for _ in records])):
            covered[i] += low <= truth[i] <= high
            seen[i] += not low <= 0 <= high
    assert (covered >= 0.9 * REDRAWS).all(), dict(zip(codes, covered, strict=True))
    assert covered.mean() >= 0.93 * REDRAWS
    assert (seen[np.abs(truth) >= 2 * LARGE] == REDRAWS).all()


def test_a_planted_shift_of_the_label() -> None:
    risks = [each.outcomes[TASK].recorded_risk for each in hospitals("label_shift", 0.6)]
    truth = risks[0].mean() - np.concatenate(risks[1:]).mean()
    assert abs(truth) > 0.03
    rng = np.random.default_rng(12)
    covered = 0
    for _ in range(REDRAWS):
        labels = [rng.random(STAYS) < rng.choice(risk, STAYS) for risk in risks]
        rates = []
        for positives, n in ((labels[0].sum(), STAYS), (labels[1].sum() + labels[2].sum(), 2 * STAYS)):
            rates.append(share_between(positives, positives, positives, n))
        here, there = rates
        assert here is not None
        assert there is not None
        covered += holds(difference(here, there), truth)
    assert covered >= 0.93 * REDRAWS


def test_what_a_model_from_elsewhere_loses_under_a_planted_change_of_the_law() -> None:
    """Its own model and another hospital's, both on the same patients of the first: DeLong's covariance."""
    here, there, _ = hospitals("concept_shift", 2.0)
    x, risk = Recorded(here).means(), here.outcomes[TASK].recorded_risk
    learning, tested = np.arange(POPULATION) < POPULATION // 2, np.arange(POPULATION) >= POPULATION // 2

    def scores(features: Arrays, labels: Arrays) -> Arrays:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
        return np.asarray(model.fit(features, labels).predict_proba(x[tested])[:, 1])

    own = scores(x[learning], here.outcomes[TASK].happened[learning])
    foreign = scores(Recorded(there).means(), there.outcomes[TASK].happened)
    law = risk[tested]
    truth = expected_auroc(own, law) - expected_auroc(foreign, law)
    assert truth > 0.05
    rng = np.random.default_rng(13)
    covered = seen = 0
    for _ in range(REDRAWS):
        rows = rng.integers(0, len(law), STAYS)
        labels = (rng.random(STAYS) < law[rows]).astype(float)
        found = auroc_difference(labels, own[rows], foreign[rows], np.arange(STAYS))
        assert found is not None
        compared = paired_comparison(Paired(*found, smaller=int(min(labels.sum(), STAYS - labels.sum()))))
        covered += holds(compared, truth)
        seen += not holds(compared, 0.0)
    assert covered >= 0.93 * REDRAWS
    assert seen >= 0.5 * REDRAWS


def holds(compared: Comparison | None, value: float) -> bool:
    assert compared is not None
    low, high = compared.interval
    assert high is not None
    return bool(low <= value <= high)


def test_patients_of_one_hospital_do_not_differ_from_each_other() -> None:
    """The negative control: of a hundred intervals some five leave out 0, by chance."""
    record = Recorded(hospitals("label_shift", 0.6)[0])
    rng = np.random.default_rng(14)
    seen = 0
    for _ in range(REDRAWS // 2):
        here, there = (record.statistics(rng.integers(0, POPULATION, STAYS)) for _ in range(2))
        for own, theirs in zip(here, there, strict=True):
            found = standardised_difference(own, theirs)
            assert found is not None
            assert found.interval is not None
            seen += not found.interval[0] <= 0 <= found.interval[1]
    assert 0.01 < seen / (REDRAWS // 2 * len(record.codes)) < 0.07


def test_shares_of_people() -> None:
    """Austin 2009, section 2: (p - q) over the root of the mean of p (1 - p) and q (1 - q)."""
    found = share_difference(30, 100, 60, 300)
    assert found is not None
    assert found.value == pytest.approx(0.1 / ((0.3 * 0.7 + 0.2 * 0.8) / 2) ** 0.5)
    assert share_difference(100, 100, 300, 300) is None
    assert share_difference(1, 1, 60, 300) is None


def test_nothing_is_said_of_a_code_that_does_not_vary_or_that_one_person_has() -> None:
    code = CodeStatistics("a", "", 9, 9, 9, 9, 5.0, 18.0)
    still = CodeStatistics("a", "", 9, 9, 9, 9, 4.0, 0.0)
    rare = CodeStatistics("a", "", 9, 9, 1, 1, 4.0, 9.0)
    assert standardised_difference(still, still) is None
    assert standardised_difference(rare, code) is None
    one = standardised_difference(code, still)
    assert one is not None
    assert one.value == pytest.approx(1 / (18 / 8 / 2) ** 0.5)
