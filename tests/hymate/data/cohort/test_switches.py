"""Each switch changes what it says, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hymate.data.cohort.codes import MEASUREMENTS, OTHER_UNITS
from hymate.data.cohort.figures import expected_auroc
from hymate.data.cohort.outcomes import WEIGHTS
from tests.hymate.data.cohort.made import (
    LENGTH,
    MORTALITY,
    dynamic,
    hospitals,
    labels,
    parts,
    together,
)

LABELS = {f"labels of {MORTALITY}", f"labels of {LENGTH}"}
RISKS = {f"risk of {MORTALITY}", f"risk of {LENGTH}"}


@pytest.mark.parametrize(
    ("switch", "changed"),
    [
        ({"covariate_shift": 1.0}, {"observations", "age", "splits", *LABELS, *RISKS}),
        ({"label_shift": 2.0}, {"splits", *LABELS, *RISKS}),
        ({"concept_shift": 2.0}, {"splits", *LABELS, *RISKS}),
        ({"coverage_gaps": 0.5}, {"observations", "codes"}),
        ({"unit_errors": {"share": 0.5}}, {"observations"}),
        ({"unit_errors": {"share": 0.5, "declared": True}}, {"observations", "codes"}),
        ({"clocks": {"duplicated_rows": 0.1}}, {"observations"}),
        ({"clocks": {"shifted_share": 1.0}}, {"observations"}),
        ({"severe_missing": 0.5}, {"observations"}),
        ({"observations": {"factor": 2.0}}, {"observations"}),
        ({"observations": {"factor": 0.5}}, {"observations"}),
        ({"observations": {"spread": 0.5}}, {"observations"}),
        ({"observations": {"long_share": 0.05, "long_count": 1000}}, {"observations"}),
        ({"disparity": {"noise": 3.0}}, {"observations"}),
        ({"disparity": {"missing": 0.5}}, {"observations"}),
        ({"disparity": {"label_bias": 0.9}}, {f"labels of {MORTALITY}"}),
        ({"decoys": 2}, {"observations", "codes"}),
        ({"demographics": "full"}, {"groups", "codes"}),
        ({"observer": True}, set()),
        ({"signals": {LENGTH: 3.0}}, {f"labels of {LENGTH}", f"risk of {LENGTH}"}),
        ({"disparity": {"group": "GENDER//M"}}, set()),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),  # the same in every process
)
def test_a_switch_changes_what_it_says_and_nothing_else(switch: dict[str, Any], changed: set[str]) -> None:
    plain = [parts(hospital) for hospital in hospitals()]
    switched = [parts(hospital) for hospital in hospitals(**switch)]
    differing = {
        name
        for before, after in zip(plain, switched, strict=True)
        for name in before
        if not before[name].equals(after[name])
    }
    assert all(before.keys() == after.keys() for before, after in zip(plain, switched, strict=True))
    assert differing == changed


def test_another_task_leaves_the_other_labels_and_codes_alone() -> None:
    tasks = [MORTALITY, LENGTH, "readmission_30d", "deterioration"]
    for before, after in zip(hospitals(), hospitals(tasks=tasks), strict=True):
        for task in (MORTALITY, LENGTH):
            assert_frame_equal(before.labels[task], after.labels[task])
        assert_frame_equal(before.events, after.events.filter(pl.col("code") != "Marker"))
        assert "Marker" in set(after.codes["code"])


def test_hospitals_that_are_alike_share_law_and_population() -> None:
    made = hospitals(stays=2000)
    assert len({hospital.facts["intercept"] for hospital in made}) == 1
    assert [hospital.died.mean() for hospital in made] == pytest.approx([0.22] * 3, abs=0.03)
    assert all(not any(hospital.facts["case_mix"].values()) for hospital in made)
    noise = [scatter(dynamic(hospital), "HR") for hospital in made]
    assert noise == pytest.approx([noise[0]] * 3, rel=0.1)


def scatter(events: pl.DataFrame, code: str) -> float:
    """Standard deviation of the steps between consecutive readings of a stay."""
    readings = events.filter(pl.col("code") == code)
    steps = readings.select(pl.col("numeric_value").diff().over("subject_id")).to_series().drop_nulls()
    return float(np.std(steps.to_numpy()))


def test_covariate_shift_moves_patients_and_leaves_the_law() -> None:
    plain, shifted = (hospitals(hospitals=6, stays=400, covariate_shift=s) for s in (0.0, 1.0))
    assert {h.facts["intercept"] for h in shifted} == {h.facts["intercept"] for h in plain}
    ages = [
        [h.events.filter(pl.col("code") == "AGE")["numeric_value"].mean() for h in m]
        for m in (plain, shifted)
    ]
    assert np.std(ages[1]) > 3 * np.std(ages[0])  # type: ignore[arg-type]
    mixes = np.array([list(h.facts["case_mix"].values()) for h in shifted])
    assert 0.3 < mixes.std() < 0.8
    rates = [[float(h.risk.mean()) for h in made] for made in (plain, shifted)]
    assert np.ptp(rates[1]) > 3 * np.ptp(rates[0])


def test_covariate_shift_leaves_the_law_of_varied_hospitals_too() -> None:
    """There the intercept is fitted to each hospital's own patients: to those it has without the shift."""
    plain, shifted = (hospitals(base="varied", covariate_shift=s) for s in (0.0, 1.0))
    assert [h.facts["intercept"] for h in shifted] == [h.facts["intercept"] for h in plain]
    assert [h.facts["case_mix"] for h in shifted] != [h.facts["case_mix"] for h in plain]


def test_label_shift_moves_base_rates_by_the_strength() -> None:
    plain, shifted = (hospitals(hospitals=30, stays=100, label_shift=s) for s in (0.0, 1.5))
    moved = [b.facts["intercept"] - a.facts["intercept"] for a, b in zip(plain, shifted, strict=True)]
    assert 1.0 < np.std(moved) < 2.0
    seen = np.array([labels(hospital).mean() for hospital in shifted])
    assert np.ptp(seen) > 0.35
    assert np.corrcoef(moved, seen)[0, 1] > 0.8


def test_concept_shift_changes_who_is_at_risk_but_not_how_many() -> None:
    plain, shifted = (hospitals(hospitals=6, stays=800, concept_shift=s) for s in (0.0, 1.0))
    for before, after in zip(plain, shifted, strict=True):
        assert after.risk.mean() == pytest.approx(before.risk.mean(), abs=1e-6)
        # The common truth is no longer this hospital's truth.
        assert expected_auroc(before.risk, after.risk) < expected_auroc(after.risk, after.risk) - 0.02
        assert after.facts["coefficients"][MORTALITY]["end"] != list(WEIGHTS[MORTALITY].end)


def test_coverage_gaps_take_codes_and_leave_the_rest() -> None:
    plain, few, many = (hospitals(hospitals=20, stays=20, coverage_gaps=g) for g in (0.0, 0.3, 0.6))
    for before, some, most in zip(plain, few, many, strict=True):
        gone = set(before.events["code"]) - set(some.events["code"])
        assert gone == set(some.facts["unmeasured"])
        assert not gone & set(some.codes["code"])
        assert_frame_equal(before.events.filter(~pl.col("code").is_in(list(gone))), some.events)
        assert gone <= set(most.facts["unmeasured"])
        assert "HR" in set(most.events["code"])
    share = np.mean([len(hospital.facts["unmeasured"]) for hospital in few]) / (len(MEASUREMENTS) - 1)
    assert 0.22 < share < 0.38


@pytest.mark.parametrize("declared", [False, True])
def test_unit_errors_show_in_the_medians(declared: bool) -> None:
    plain = hospitals(hospitals=4, stays=200)
    wrong = hospitals(hospitals=4, stays=200, unit_errors={"share": 0.5, "declared": declared})
    seen = set()
    for before, after in zip(plain, wrong, strict=True):
        codes = after.facts["in_other_unit"]["codes"]
        medians = [
            dict(dynamic(h).group_by("code").agg(pl.col("numeric_value").median()).iter_rows())
            for h in (before, after)
        ]
        units = dict(after.codes.select("code", "unit").iter_rows())
        usual = dict(before.codes.select("code", "unit").iter_rows())
        for code in medians[0]:
            if code not in codes:
                assert medians[1][code] == medians[0][code]
                assert units[code] == usual[code]
                continue
            seen.add(code)
            other = OTHER_UNITS[code]
            expected = medians[0][code] * other.factor + other.plus
            assert medians[1][code] == pytest.approx(expected, abs=0.51 * 10.0**-other.decimals)
            assert medians[1][code] != pytest.approx(medians[0][code], rel=0.2)
            assert units[code] == (other.unit if declared else usual[code])
    assert len(seen) > 5


def test_clocks_shift_observations_against_the_prediction_time() -> None:
    plain = hospitals(hospitals=12, stays=20)
    fixed = hospitals(hospitals=12, stays=20, clocks={"shifted_share": 0.5, "shifted_hours": 3.5})
    zones = hospitals(
        hospitals=12, stays=20, clocks={"shifted_share": 1.0, "shifted_hours": 9, "time_zone": True}
    )
    assert {hospital.facts["clock_hours"] for hospital in fixed} == {-3.5, 0.0, 3.5}
    hours = [hospital.facts["clock_hours"] for hospital in zones]
    assert all(hour == int(hour) and 1 <= abs(hour) <= 9 for hour in hours)
    assert len(set(hours)) > 4
    for made in (fixed, zones):
        for before, after in zip(plain, made, strict=True):
            back = pl.duration(seconds=round(3600 * after.facts["clock_hours"]))
            assert_frame_equal(dynamic(before), dynamic(after).with_columns(time=pl.col("time") - back))


def test_duplicated_rows_are_exact_copies() -> None:
    for before, after in zip(hospitals(), hospitals(clocks={"duplicated_rows": 0.2}), strict=True):
        rows = dynamic(after)
        assert_frame_equal(rows.unique(maintain_order=True), dynamic(before))
        assert len(rows) / len(dynamic(before)) == pytest.approx(1.2, abs=0.03)


def missing_share(before: Any, after: Any) -> pl.DataFrame:
    """Per subject, the share of its observations that `after` lacks; `after` has no others."""
    assert (
        len(
            dynamic(after).join(
                dynamic(before), on=["subject_id", "time", "code", "numeric_value"], how="anti"
            )
        )
        == 0
    )
    counts = [dynamic(h).group_by("subject_id").len() for h in (before, after)]
    return (
        counts[0]
        .join(counts[1], on="subject_id", suffix="_left")
        .select("subject_id", lost=1 - pl.col("len_left") / pl.col("len"))
        .sort("subject_id")
    )


def test_missingness_follows_severity() -> None:
    for before, after in zip(hospitals(stays=400), hospitals(stays=400, severe_missing=0.8), strict=True):
        lost = missing_share(before, after)
        assert len(lost) == 400  # nobody loses everything
        assert np.corrcoef(lost["lost"].to_numpy(), before.risk)[0, 1] > 0.5


def test_a_group_is_measured_worse_and_others_are_not() -> None:
    group = "ETHNICITY//B"
    plain = hospitals(stays=150)
    noisy = hospitals(stays=150, disparity={"group": group, "noise": 4.0})
    sparse = hospitals(stays=150, disparity={"group": group, "missing": 0.5})
    for before, loud, less in zip(plain, noisy, sparse, strict=True):
        members = pl.col("subject_id").is_in(before.subjects[before.groups[group]].tolist())
        assert_frame_equal(dynamic(before).filter(~members), dynamic(loud).filter(~members))
        assert scatter(dynamic(loud).filter(members), "RR") > 1.5 * scatter(
            dynamic(before).filter(members), "RR"
        )
        assert_frame_equal(dynamic(before).filter(~members), dynamic(less).filter(~members))
        lost = missing_share(before, less).filter(members)["lost"].mean()
        assert lost == pytest.approx(0.5, abs=0.1)
        assert_frame_equal(before.labels[MORTALITY], loud.labels[MORTALITY])


def test_label_bias_overlooks_positives_of_one_group() -> None:
    group = "GENDER//F"
    plain = hospitals(stays=1000)
    biased = hospitals(stays=1000, disparity={"group": group, "label_bias": 0.4})
    members = np.concatenate([hospital.groups[group] for hospital in plain])
    true, recorded = together(plain, MORTALITY, "label"), together(biased, MORTALITY, "label")
    assert (true[~members] == recorded[~members]).all()
    assert not (recorded & ~true).any()
    assert recorded[members].sum() / true[members].sum() == pytest.approx(0.6, abs=0.07)
    assert (together(biased, MORTALITY, "happened") == true).all()
    assert recorded[members].mean() == pytest.approx(
        together(biased, MORTALITY, "recorded_risk")[members].mean(), abs=0.03
    )


def test_more_observations_keep_those_there_were() -> None:
    for before, after in zip(hospitals(), hospitals(observations={"factor": 3.0}), strict=True):
        kept = dynamic(before).join(
            dynamic(after), on=["subject_id", "time", "code", "numeric_value"], how="semi"
        )
        assert len(kept) == len(dynamic(before))
        assert len(dynamic(after)) / len(kept) == pytest.approx(3.0, abs=0.3)
        assert not dynamic(after).select("subject_id", "time", "code").is_duplicated().any()


def test_fewer_observations_and_uneven_ones() -> None:
    plain, half, uneven = (
        hospitals(stays=400, observations=asked) for asked in ({}, {"factor": 0.5}, {"spread": 1.0})
    )
    for before, after, wide in zip(plain, half, uneven, strict=True):
        assert len(dynamic(after)) / len(dynamic(before)) == pytest.approx(0.55, abs=0.08)
        spread = [dynamic(h).group_by("subject_id").len()["len"].log().std() for h in (before, wide)]
        assert spread[1] > 1.5 * spread[0]  # type: ignore[operator]


def test_long_stays_have_ten_thousand_observations() -> None:
    made = hospitals(hospitals=1, stays=40, observations={"long_share": 0.2, "long_count": 12_000})
    counts = dynamic(made[0]).group_by("subject_id").len()["len"].sort().to_numpy()
    long = counts[counts > 3000]
    assert 2 <= len(long) <= 16
    assert long.max() > 10_000
    assert np.median(long) == pytest.approx(12_000, rel=0.35)
    assert np.median(counts[counts <= 3000]) < 120


def test_decoys_and_their_times_tell_nothing() -> None:
    (hospital,) = hospitals(hospitals=1, stays=3000, decoys=1)
    readings = dynamic(hospital).filter(pl.col("code") == "DECOY//1").group_by("subject_id")
    told = readings.agg(pl.len(), pl.col("numeric_value").mean()).sort("subject_id")
    assert len(told) > 2990
    seen = np.isin(hospital.subjects, told["subject_id"].to_numpy())
    for column in ("len", "numeric_value"):
        assert abs(np.corrcoef(told[column].to_numpy(), hospital.risk[seen])[0, 1]) < 0.07


def test_full_demographics_describe_everyone_once() -> None:
    for hospital in hospitals(demographics="full", disparity={"group": "INSURANCE//NONE", "noise": 2.0}):
        for kind in ("UNIT//", "INSURANCE//", "GENDER//", "ETHNICITY//"):
            rows = hospital.events.filter(pl.col("code").str.starts_with(kind))
            assert rows["subject_id"].to_list() == hospital.subjects.tolist()
        assert set(hospital.events["code"]) <= set(hospital.codes["code"])
