"""One synthetic hospital, made from (seed, k) and the cohort's configuration alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.cohort.codes import MARKER, MEASUREMENTS, PROCESSES, code_table, decoy
from hymate.data.cohort.config import TASKS, SyntheticConfig, Task
from hymate.data.cohort.demographics import Demographics, draw_demographics
from hymate.data.cohort.faults import Faults, apply_faults, draw_faults
from hymate.data.cohort.figures import bayes_auroc
from hymate.data.cohort.observer import observed_risk
from hymate.data.cohort.outcomes import (
    LENGTH_DECIMALS,
    LENGTH_LOG_MEAN,
    LENGTH_LOG_SD,
    LENGTH_MINIMUM,
    Law,
    laws_of,
)
from hymate.data.cohort.physiology import Floats, draw_physiology
from hymate.data.cohort.recording import Circumstances, draw_slope, record
from hymate.data.cohort.sizes import HOURS, stays_of
from hymate.data.cohort.streams import Stream, generator
from hymate.data.meds import EVENT_SCHEMA
from hymate.data.splits import stratified_splits

Booleans = npt.NDArray[np.bool_]

WEAK_GROUP = "GENDER//F"
WEAK_NOISE = 4.0
"""`base: varied`: how much noisier the weak group's measurements are."""
_OPTIONAL_LABS = ("Bilirubin", "Lactate", "WBC", "BUN", "Platelets", "pH")
_FIRST_DAY = dt.datetime(2015, 1, 1)
_CASE_MIX_SD, _AGE_SD = 0.5, 8.0  # of covariate shift at strength 1


@dataclass(frozen=True)
class Outcome:
    """The truth of one task at one hospital; arrays (labelled stays,), by ascending subject.

    `labelled` (stays,) says whose they are. `risk` is the true probability of `happened` (for
    `length_of_stay`: expected and realised days); `recorded_risk` that of the label written down;
    `observer` what a perfect observer of the record would state, where that was asked for.
    """

    labelled: Booleans
    risk: Floats
    recorded_risk: Floats
    happened: npt.NDArray[Any]
    label: npt.NDArray[Any]
    observer: Floats | None


@dataclass(frozen=True)
class Hospital:
    """One synthetic site: MEDS tables, and what no real hospital knows.

    `subjects` (stays,) ascending; `outcomes` of the tasks asked for; `died` (stays,); `groups` name ->
    members (stays,); `facts` are the planted differences, as written to truth.json.
    """

    name: str
    events: pl.DataFrame
    splits: pl.DataFrame
    labels: dict[str, pl.DataFrame]
    codes: pl.DataFrame
    subjects: npt.NDArray[np.int64]
    died: Booleans
    outcomes: Mapping[Task, Outcome]
    groups: Mapping[str, Booleans]
    faults: Faults
    facts: dict[str, Any]

    @property
    def risk(self) -> Floats:
        """True probability of in-hospital mortality, where that task was asked for."""
        return self.outcomes["in_hospital_mortality"].risk


@dataclass(frozen=True)
class _Nature:
    """How `base: varied` makes a hospital differ before any switch; all alike otherwise."""

    case_mix: Floats
    age_shift: float
    device: dict[str, float]
    unmeasured: tuple[str, ...]
    ethnicity: Floats


def generate_hospital(config: SyntheticConfig, k: int) -> Hospital:
    """Hospital k (1, 2, ...) of the cohort."""
    rng = generator(config.seed, k)
    nature = _draw_nature(rng, config, k)
    stays = stays_of(config, k)
    own = generator(config.seed, k, Stream.CASE_MIX)
    shift = config.covariate_shift * _CASE_MIX_SD * own.normal(size=len(PROCESSES))
    more_age_shift = config.covariate_shift * _AGE_SD * float(own.normal())

    subjects = k * 1_000_000 + np.arange(1, stays + 1)
    people = draw_demographics(
        rng,
        config,
        k,
        stays,
        age_shift=nature.age_shift,
        more_age_shift=more_age_shift,
        ethnicity=nature.ethnicity,
    )
    patients, usual_end = draw_physiology(rng, nature.case_mix, shift, stays)
    slope = draw_slope(config, k, stays)
    laws = laws_of(config, k, usual_end, patients.trend, people.usual_age)
    risks = {task: law.risk(patients.end, patients.trend, people.age, slope) for task, law in laws.items()}
    died = rng.random(stays) < risks["in_hospital_mortality"]
    noise = rng.normal(LENGTH_LOG_MEAN, LENGTH_LOG_SD, stays)
    days = LENGTH_MINIMUM + np.exp(noise + laws["length_of_stay"].length_effect(patients.end))
    admission = rng.integers(0, 5 * 365 * 24 * 60, stays)  # minutes after _FIRST_DAY

    faults = draw_faults(config, k)
    unmeasured = frozenset((*nature.unmeasured, *faults.never_measured))
    circumstances = _circumstances(config, people, nature.device, unmeasured)
    rows = record(rng, config, k, patients, slope, circumstances)
    seen = (
        observed_risk(
            rows, {t: laws[t] for t in config.tasks}, nature.case_mix + shift, people.age, circumstances
        )
        if config.runs_observer
        else None
    )
    happened: dict[Task, npt.NDArray[Any]] = {
        "in_hospital_mortality": died,
        "length_of_stay": days,
        "long_stay": days > laws["long_stay"].threshold,
    }
    outcomes = {
        task: _outcome(config, k, task, risks[task], happened.get(task), people, died, seen)
        for task in config.tasks
    }
    admissions = _admissions(subjects, admission)
    return Hospital(
        name=config.name(k),
        events=_events(people.rows(subjects), apply_faults(faults, config, k, rows), admissions),
        splits=stratified_splits(pl.DataFrame({"subject_id": subjects, "stratum": died}), config.seed),
        labels={task: _labels(task, outcome, admissions) for task, outcome in outcomes.items()},
        codes=_codes(config, unmeasured, faults),
        subjects=subjects,
        died=died,
        outcomes=outcomes,
        groups=people.groups(),
        faults=faults,
        facts=_facts(nature, laws, risks, unmeasured, faults, shift, more_age_shift, config),
    )


def _draw_nature(rng: np.random.Generator, config: SyntheticConfig, k: int) -> _Nature:
    case_mix = rng.normal(0.0, 0.2, len(PROCESSES))
    age_shift = float(rng.normal(0.0, 4.0))
    codes = [m.code for m in MEASUREMENTS]
    device = dict(zip(codes, rng.normal(0.0, 0.2, len(codes)).tolist(), strict=True))
    unmeasured = sorted(rng.permutation(_OPTIONAL_LABS)[: (k - 1) % 4].tolist())
    usual = np.array([6.0, 3.0, 2.0])
    ethnicity = rng.dirichlet(usual)
    if config.base == "varied":
        return _Nature(case_mix, age_shift, device, tuple(unmeasured), ethnicity)
    # Drawn all the same: the patients' own draws are then those of the varied cohort.
    return _Nature(np.zeros(len(PROCESSES)), 0.0, dict.fromkeys(codes, 0.0), (), usual / usual.sum())


def _circumstances(
    config: SyntheticConfig, people: Demographics, device: Mapping[str, float], unmeasured: frozenset[str]
) -> Circumstances:
    noise = np.where(people.members(WEAK_GROUP) & (config.base == "varied"), WEAK_NOISE, 1.0)
    planted = people.members(config.disparity.group)
    noise = noise * np.where(planted, config.disparity.noise, 1.0)
    return Circumstances(device, unmeasured, noise, np.where(planted, config.disparity.missing, 0.0))


def _outcome(
    config: SyntheticConfig,
    k: int,
    task: Task,
    risk: Floats,
    happened: npt.NDArray[Any] | None,
    people: Demographics,
    died: Booleans,
    seen: Mapping[Task, Floats] | None,
) -> Outcome:
    part = TASKS.index(task)
    if happened is None:
        happened = generator(config.seed, k, Stream.OUTCOME, part).random(len(risk)) < risk
    recorded, label = risk, happened
    bias = config.disparity.label_bias
    if bias and task != "length_of_stay":
        group = people.members(config.disparity.group)
        overlooked = generator(config.seed, k, Stream.LABEL_BIAS, part).random(len(risk)) < bias
        label = happened & ~(group & overlooked)
        recorded = risk * (1.0 - bias * group)
    # Nobody who died is readmitted, and nobody asks.
    labelled = ~died if task == "readmission_30d" else np.ones(len(risk), bool)
    observer = None if seen is None else seen[task][labelled]
    return Outcome(
        labelled, risk[labelled], recorded[labelled], happened[labelled], label[labelled], observer
    )


def _admissions(subjects: npt.NDArray[np.int64], minutes: npt.NDArray[np.int64]) -> pl.DataFrame:
    frame = pl.DataFrame({"subject_id": subjects, "admission": minutes}).with_columns(
        admission=pl.lit(_FIRST_DAY, pl.Datetime("us")) + pl.duration(minutes=pl.col("admission"))
    )
    return frame.with_row_index("stay").with_columns(pl.col("stay").cast(pl.Int64))


def _labels(task: Task, outcome: Outcome, admissions: pl.DataFrame) -> pl.DataFrame:
    asked = admissions.filter(pl.Series(outcome.labelled)).select(
        "subject_id", prediction_time=pl.col("admission") + pl.duration(hours=HOURS)
    )
    if task == "length_of_stay":
        days = pl.Series(outcome.label, dtype=pl.Float32).round(LENGTH_DECIMALS)
        return asked.with_columns(float_value=days)
    return asked.with_columns(boolean_value=pl.Series(outcome.label, dtype=pl.Boolean))


def _events(static: pl.DataFrame, rows: pl.DataFrame, admissions: pl.DataFrame) -> pl.DataFrame:
    dynamic = rows.join(admissions, on="stay").with_columns(
        time=pl.col("admission") + pl.duration(seconds=pl.col("second"))
    )
    events = pl.concat([static, dynamic.select(EVENT_SCHEMA.names()).cast(EVENT_SCHEMA)])
    return events.sort("subject_id", "time", "code", nulls_last=False)


def _codes(config: SyntheticConfig, unmeasured: frozenset[str], faults: Faults) -> pl.DataFrame:
    more = [decoy(number) for number in range(1, config.decoys + 1)]
    if "deterioration" in config.tasks:
        more.append(MARKER)
    return code_table(
        unmeasured, more=more, more_static=config.demographics == "full", units=faults.declared_units
    )


def _facts(
    nature: _Nature,
    laws: Mapping[Task, Law],
    risks: Mapping[Task, Floats],
    unmeasured: frozenset[str],
    faults: Faults,
    shift: Floats,
    more_age_shift: float,
    config: SyntheticConfig,
) -> dict[str, Any]:
    mortality = risks["in_hospital_mortality"]
    case_mix = nature.case_mix + shift
    facts: dict[str, Any] = {
        "prevalence": round(float(mortality.mean()), 4),
        "bayes_auroc": round(bayes_auroc(mortality), 4),
        "intercept": round(laws["in_hospital_mortality"].intercept, 4),
        "case_mix": {p: round(float(shift), 4) for p, shift in zip(PROCESSES, case_mix, strict=True)},
        "age_shift_years": round(nature.age_shift + more_age_shift, 2),
        "unmeasured": sorted(unmeasured),
        "device_offset_in_spreads": {code: round(offset, 4) for code, offset in nature.device.items()},
    }
    if config.unit_errors.share:
        facts["in_other_unit"] = {"codes": list(faults.in_other_unit), "declared": faults.declared}
    if config.clocks.shifted_share:
        facts["clock_hours"] = faults.clock_hours
    if config.concept_shift:
        facts["coefficients"] = {
            task: {
                "end": _rounded(weights.end),
                "trend": _rounded(weights.trend),
                "interaction": round(weights.interaction, 4),
                "age": round(weights.age, 4),
            }
            for task, law in laws.items()
            if task in config.tasks and (weights := law.weights) is not None
        }
    return facts


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]
