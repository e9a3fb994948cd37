"""Synthetic hospitals: what is said to be planted is there, and nothing is when the signal is 0."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hymate.data.cohort.codes import MEASUREMENTS
from hymate.data.cohort.figures import bayes_auroc
from hymate.data.cohort.hospital import WEAK_GROUP, Hospital
from hymate.data.cohort.sizes import HOURS
from hymate.data.meds import SPLITS, MedsDataset
from hymate.data.synthetic import generate_cohort, write_cohort
from hymate.errors import InputFault

MORTALITY = "in_hospital_mortality"


@dataclass(frozen=True)
class Made:
    """A cohort with all its hospitals in memory."""

    hospitals: tuple[Hospital, ...]
    truth: dict[str, Any]


def made(**arguments: Any) -> Made:
    cohort = generate_cohort(**arguments)
    return Made(tuple(cohort), cohort.truth())


@pytest.fixture(scope="module")
def cohort() -> Made:
    """Larger than the default, so that a planted fact stands out from chance."""
    return made(hospitals=4, stays=1500, seed=0)


@pytest.fixture(scope="module")
def control() -> Made:
    return made(hospitals=4, stays=1500, seed=0, signal=0.0)


def outcome(hospital: Hospital) -> npt.NDArray[np.bool_]:
    return hospital.labels[MORTALITY].sort("subject_id")["boolean_value"].to_numpy()


def last_values(cohort: Made) -> pl.DataFrame:
    """One row a stay: last value of each code, age, number of observations, label, group, split."""
    tables = []
    for hospital in cohort.hospitals:
        dynamic = hospital.events.drop_nulls("time")
        last = dynamic.group_by("subject_id", "code").agg(pl.col("numeric_value").last())
        wide = last.pivot(on="code", index="subject_id", values="numeric_value")
        static = hospital.events.filter(pl.col("time").is_null())
        age = static.filter(pl.col("code") == "AGE").select("subject_id", age="numeric_value")
        wide = (
            wide.join(age, on="subject_id")
            .join(dynamic.group_by("subject_id").len("observations"), on="subject_id")
            .join(hospital.labels[MORTALITY].select("subject_id", y="boolean_value"), on="subject_id")
            .join(hospital.splits, on="subject_id")
            .with_columns(
                weak=pl.col("subject_id").is_in(
                    static.filter(pl.col("code") == WEAK_GROUP)["subject_id"].implode()
                )
            )
        )
        tables.append(wide)
    return pl.concat(tables, how="diagonal")


def held_out_auroc(table: pl.DataFrame, fitted_on: pl.DataFrame) -> float:
    """A logistic regression on last values (mean where never measured), scored on held-out stays."""
    features = [m.code for m in MEASUREMENTS if m.code in fitted_on.columns] + ["age"]
    means = [pl.col(name).fill_null(fitted_on[name].mean() or 0.0) for name in features]
    train, test = fitted_on.filter(pl.col("split") == "train"), table.filter(pl.col("split") == "held_out")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
    model.fit(train.select(means).to_numpy(), train["y"].to_numpy())
    score = model.predict_proba(test.select(means).to_numpy())[:, 1]
    return float(roc_auc_score(test["y"].to_numpy(), score))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_cohort_of_the_demo_stays_what_it_was() -> None:
    """Figures in the README and elsewhere were reached on these very records."""
    digest = hashlib.sha256()
    for hospital in generate_cohort(4, 600, seed=0):
        labels = (hospital.labels[task] for task in sorted(hospital.labels))
        for table in (hospital.events, hospital.splits, *labels, hospital.codes):
            digest.update(table.write_csv().encode())
    assert digest.hexdigest()[:16] == "4487832e9bdce0df"


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_cohort(generate_cohort(2, 30, seed), tmp_path / name)
    first, again, other = (bytes_of(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first["hospital_1/data/train/0.parquet"] != other["hospital_1/data/train/0.parquet"]


def test_a_hospital_does_not_depend_on_how_many_there_are() -> None:
    few, many = tuple(generate_cohort(2, 40, 0)), tuple(generate_cohort(12, 40, 0))
    assert [h.name for h in few] == ["hospital_1", "hospital_2"]
    assert [h.name for h in many][:2] == ["hospital_01", "hospital_02"]
    for alone, among in zip(few, many, strict=False):
        assert_frame_equal(alone.events, among.events)
        assert_frame_equal(alone.splits, among.splits)
        assert_frame_equal(alone.labels[MORTALITY], among.labels[MORTALITY])
        assert alone.facts == among.facts


def test_no_two_hospitals_share_a_subject(cohort: Made) -> None:
    subjects = pl.concat([hospital.splits for hospital in cohort.hospitals])["subject_id"]
    assert subjects.is_unique().all()


def test_written_hospitals_are_meds(tmp_path: Path) -> None:
    cohort = generate_cohort(3, 50, 1)
    summary = write_cohort(cohort, tmp_path / "cohort")
    assert sorted(path.name for path in (tmp_path / "cohort").iterdir()) == [
        "hospital_1",
        "hospital_2",
        "hospital_3",
        "summary.json",
        "truth",
        "truth.json",
    ]
    for hospital in cohort:
        dataset = MedsDataset.open(tmp_path / "cohort" / hospital.name)
        assert_frame_equal(dataset.events(), hospital.events)
        assert_frame_equal(dataset.splits(), hospital.splits)
        assert dataset.tasks() == [MORTALITY, "length_of_stay"]
        assert (dataset.labels("length_of_stay")["label"] >= HOURS / 24).all()
        assert dataset.units()["HR"] == "bpm"
    assert json.loads((tmp_path / "cohort" / "truth.json").read_text()) == cohort.truth()
    assert summary["total"]["stays"] == 150
    assert summary["sites"]["hospital_2"]["splits"] == {"train": 35, "tuning": 5, "held_out": 10}


def test_an_older_cohort_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    write_cohort(generate_cohort(1, 20, 0), out)
    before = bytes_of(out)
    with pytest.raises(InputFault, match="exists already; give another --out, or --force"):
        write_cohort(generate_cohort(1, 20, 1), out)
    assert bytes_of(out) == before
    write_cohort(generate_cohort(2, 20, 1), out, force=True)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "hospital_1",
        "hospital_2",
        "truth",
    ]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputFault, match="holds other things than this command wrote"):
        write_cohort(generate_cohort(1, 20, 0), out, force=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_splits_are_stratified(cohort: Made) -> None:
    for hospital in cohort.hospitals:
        joined = hospital.splits.join(hospital.labels[MORTALITY], on="subject_id").group_by("split")
        shares = dict(joined.agg(pl.len() / 1500).rows())
        assert [shares[split] for split in SPLITS] == pytest.approx([0.7, 0.1, 0.2], abs=0.001)
        rates = joined.agg(pl.col("boolean_value").mean())["boolean_value"].to_list()
        assert rates == pytest.approx([outcome(hospital).mean()] * 3, abs=0.01)


def test_records_are_irregular_and_plausible(cohort: Made) -> None:
    limits = {m.code: (m.low, m.high) for m in MEASUREMENTS}
    for hospital in cohort.hospitals:
        dynamic = hospital.events.drop_nulls("time")
        per_stay = dynamic.group_by("subject_id").len()["len"]
        assert len(per_stay) == 1500
        assert 60 <= per_stay.mean() <= 90  # type: ignore[operator]
        assert per_stay.min() >= 1  # type: ignore[operator]
        hours = dynamic.join(hospital.labels[MORTALITY], on="subject_id").select(
            (pl.col("prediction_time") - pl.col("time")).dt.total_minutes() / 60
        )
        assert hours.to_series().is_between(0, HOURS, closed="right").all()
        for code, low, high in (
            dynamic.group_by("code")
            .agg(low=pl.col("numeric_value").min(), high=pl.col("numeric_value").max())
            .rows()
        ):
            assert limits[code][0] <= low + 1e-4 < high <= limits[code][1] + 1e-4
        heart_rate = dynamic.filter(pl.col("code") == "HR")
        gaps = heart_rate.select(pl.col("time").diff().over("subject_id").dt.total_minutes()).to_series()
        assert gaps.n_unique() > 500


def test_sites_differ_in_coverage_prevalence_and_devices(cohort: Made) -> None:
    measured = [set(hospital.events["code"]) for hospital in cohort.hospitals]
    everything = {m.code for m in MEASUREMENTS}
    assert everything <= measured[0]
    for k, (hospital, codes) in enumerate(zip(cohort.hospitals, measured, strict=True)):
        assert everything - codes == set(hospital.facts["unmeasured"])
        assert len(hospital.facts["unmeasured"]) == k
        assert not set(hospital.facts["unmeasured"]) & set(hospital.codes["code"])
    rates = [float(outcome(hospital).mean()) for hospital in cohort.hospitals]
    assert all(0.13 <= rate <= 0.32 for rate in rates)
    assert max(rates) - min(rates) > 0.05
    # Sodium hardly shows the latent processes: its site means show the devices.
    sodium = next(m for m in MEASUREMENTS if m.code == "Na")
    for hospital in cohort.hospitals:
        values = hospital.events.filter(pl.col("code") == "Na")["numeric_value"]
        shift = (values.mean() - sodium.mean) / sodium.spread  # type: ignore[operator]
        assert shift == pytest.approx(hospital.facts["device_offset_in_spreads"]["Na"], abs=0.12)


def test_the_true_risk_is_the_rate_of_the_label(cohort: Made) -> None:
    risk = np.concatenate([hospital.risk for hospital in cohort.hospitals])
    died = np.concatenate([outcome(hospital) for hospital in cohort.hospitals])
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = (risk >= low) & (risk < high)
        assert died[inside].mean() == pytest.approx(risk[inside].mean(), abs=0.05)
    assert roc_auc_score(died, risk) == pytest.approx(cohort.truth["bayes_auroc"], abs=0.015)


def test_bayes_auroc_is_the_expectation_over_labels() -> None:
    risk = np.array([0.1, 0.4, 0.4, 0.9])
    pairs = [(i, j) for i in range(4) for j in range(4)]
    weight = {(i, j): risk[i] * (1 - risk[j]) for i, j in pairs}
    wins = {(i, j): 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0 for i, j in pairs}
    expected = sum(weight[p] * wins[p] for p in pairs) / sum(weight.values())
    assert bayes_auroc(risk) == pytest.approx(expected, abs=1e-12)
    assert bayes_auroc(np.full(5, 0.2)) == 0.5


def test_last_values_explain_part_of_the_label_and_leave_room(cohort: Made) -> None:
    table = last_values(cohort)
    auroc = held_out_auroc(table, table)
    assert 0.88 <= cohort.truth["bayes_auroc"] <= 0.93
    assert 0.74 <= auroc <= 0.83
    assert cohort.truth["bayes_auroc"] - auroc > 0.07


def test_the_weak_group_is_at_the_same_risk_but_measured_worse(cohort: Made) -> None:
    table = last_values(cohort)
    groups = {weak: table.filter(pl.col("weak") == weak) for weak in (True, False)}
    assert groups[True]["y"].mean() == pytest.approx(groups[False]["y"].mean(), abs=0.03)
    gap = held_out_auroc(groups[False], table) - held_out_auroc(groups[True], table)
    assert gap > 0.03
    # Consecutive heart rates of one stay scatter more.
    events = pl.concat([hospital.events for hospital in cohort.hospitals]).filter(pl.col("code") == "HR")
    steps = events.select("subject_id", step=pl.col("numeric_value").diff().over("subject_id")).drop_nulls()
    steps = steps.join(table.select("subject_id", "weak"), on="subject_id")
    scatter = dict(steps.group_by("weak").agg(pl.col("step").std()).rows())
    assert scatter[True] > 1.5 * scatter[False]


def test_sicker_patients_are_observed_more_often(cohort: Made, control: Made) -> None:
    for made, planted in ((cohort, True), (control, False)):
        table = last_values(made)
        more = float(np.corrcoef(table["observations"].to_numpy(), table["y"].to_numpy())[0, 1])
        assert (more > 0.15) == planted
        assert planted or abs(more) < 0.05


def test_without_signal_labels_are_independent_of_the_record(control: Made) -> None:
    risk = np.concatenate([hospital.risk for hospital in control.hospitals])
    assert np.ptp(risk) < 1e-12  # neither patient nor hospital tells
    assert control.truth["bayes_auroc"] == pytest.approx(0.5, abs=1e-9)
    table = last_values(control)
    assert held_out_auroc(table, table) == pytest.approx(0.5, abs=0.06)
    length = pl.concat([hospital.labels["length_of_stay"] for hospital in control.hospitals])
    joined = table.select("subject_id", "observations").join(length, on="subject_id")
    assert abs(np.corrcoef(joined["observations"].to_numpy(), joined["float_value"].to_numpy())[0, 1]) < 0.05


def test_the_control_has_the_same_records_as_the_cohort(cohort: Made, control: Made) -> None:
    for with_signal, without in zip(cohort.hospitals, control.hospitals, strict=True):
        assert_frame_equal(with_signal.events, without.events)
