"""Hospitals that never were: a cohort whose signal, shifts and unfairness are known exactly.

Four latent processes (circulation, respiration, kidney, infection) move through each stay's 48 hours:

    x_p(t) = level_p + trend_p t / 48 h + OU_p(t)        (standard units, larger = sicker)

Vitals and labs are noisy linear views of them, sampled irregularly, more often when the patient is
sick. The label is Bernoulli(sigmoid(intercept_site + signal * score)); `score` takes where the
processes end, how they got there, and one interaction, so that last values alone do not suffice.
The mechanism is the same at every hospital; case mix, prevalence, devices and lab coverage are not.
One group (`GENDER//F`) is measured less precisely: same risk, weaker evidence.

`signal = 0` is the negative control: labels independent of everything recorded.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.meds import EVENT_SCHEMA, write_dataset
from hymate.data.output import (
    MADE_BY,
    SUMMARY,
    TRUTH,
    fresh_folder,
    refuse_foreign,
    require_space,
    write_json,
)
from hymate.data.splits import stratified_splits
from hymate.data.summary import summarise_sites
from hymate.data.synthetic_codes import MEASUREMENTS, PROCESSES, RATES, code_table

Floats = npt.NDArray[np.float64]

HOURS = 48
WEAK_GROUP = "GENDER//F"
_WEAK_NOISE = 4.0  # how much noisier the weak group's measurements are
_WHITE_NOISE = 0.3  # of a single reading, in units of a code's spread
_STAY_OFFSET = 0.2  # a sensor's bias that lasts the whole stay, in the same units
_MEAN_PREVALENCE = 0.22
_FIRST_DAY = dt.datetime(2015, 1, 1)

# What the label listens to, on standardised parts: see `_score`.
_END = np.array([0.50, 0.45, 0.35, 0.30])
_TREND = np.array([0.98, 0.86, 0.52, 0.63])
_INTERACTION = 0.90
_AGE = 0.35

_SICKER_MORE_OFTEN = 0.35  # log rate per unit of mean severity
_TAKEN = 0.92  # share of a round's codes that are in fact recorded
_OPTIONAL_LABS = ("Bilirubin", "Lactate", "WBC", "BUN", "Platelets", "pH")


@dataclass(frozen=True)
class Hospital:
    """One synthetic site: MEDS tables, and what no real hospital knows.

    `risk` (float64, by ascending subject) is the true probability of the label; `facts` are the
    planted differences, as written to truth.json.
    """

    name: str
    events: pl.DataFrame
    splits: pl.DataFrame
    labels: Mapping[str, pl.DataFrame]
    codes: pl.DataFrame
    risk: Floats
    facts: dict[str, Any]


@dataclass(frozen=True)
class Cohort:
    """Synthetic hospitals with the truth about them (JSON-ready)."""

    hospitals: tuple[Hospital, ...]
    truth: dict[str, Any]


def generate_cohort(hospitals: int = 4, stays: int = 600, seed: int = 0, signal: float = 1.0) -> Cohort:
    """Draw the cohort. Hospital k depends on (seed, k, stays, signal) only, not on how many there are.

    Args:
        hospitals: number of sites, at least 1.
        stays: stays a site, one per subject, at least 10 (so that every split has some).
        seed: of every draw, at least 0.
        signal: strength of the label's dependence on the patient; 0 = none.
    """
    width = len(str(hospitals))
    made = tuple(
        _generate_hospital(f"hospital_{k:0{width}d}", k, stays, seed, signal) for k in range(1, hospitals + 1)
    )
    risk = np.concatenate([hospital.risk for hospital in made])
    truth = {
        "signal": signal,
        "seed": seed,
        "bayes_auroc": bayes_auroc(risk),
        "label": "in_hospital_mortality ~ Bernoulli(sigmoid(intercept + signal * score))",
        "score": {
            "processes": list(PROCESSES),
            "end": _END.tolist(),
            "trend": _TREND.tolist(),
            "circulation_end_x_respiration_end": _INTERACTION,
            "age": _AGE,
        },
        "weak_group": {"code": WEAK_GROUP, "noise_times": _WEAK_NOISE},
        "informative_sampling": {"log_rate_per_severity": _SICKER_MORE_OFTEN},
        "sites": {hospital.name: hospital.facts for hospital in made},
    }
    return Cohort(made, truth)


def write_cohort(cohort: Cohort, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write `out/<hospital>/` as MEDS, truth.json and summary.json beside them; returns the summary.

    Raises:
        InputFault: `out` is occupied, cannot be written, or the disk is full.
    """
    refuse_foreign(out, force=force)
    require_space(out, sum(int(site.events.estimated_size()) for site in cohort.hospitals))
    sites = {h.name: (h.events, h.splits, h.labels["in_hospital_mortality"]) for h in cohort.hospitals}
    known = {key: cohort.truth[key] for key in ("seed", "signal", "bayes_auroc")}
    summary = {"made_by": f"{MADE_BY} synthetic", **known, **summarise_sites(sites)}
    with fresh_folder(out, replace=force) as folder:
        for site in cohort.hospitals:
            write_dataset(
                folder / site.name,
                name=site.name,
                events=site.events,
                splits=site.splits,
                labels=site.labels,
                codes=site.codes,
            )
        write_json(folder / TRUTH, cohort.truth)
        write_json(folder / SUMMARY, summary)
    return summary


def bayes_auroc(risk: Floats) -> float:
    """AUROC that the true risk reaches in expectation over the labels: no model can do better.

    sum_ij r_i (1 - r_j) [r_i > r_j] / sum_ij r_i (1 - r_j), equal risks counting half.
    """
    _, which = np.unique(risk, return_inverse=True)
    positive = np.bincount(which, weights=risk)
    negative = np.bincount(which, weights=1.0 - risk)
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (risk.sum() * (1.0 - risk).sum()))


def _generate_hospital(name: str, k: int, stays: int, seed: int, signal: float) -> Hospital:
    rng = np.random.default_rng([seed, k])
    case_mix = rng.normal(0.0, 0.2, len(PROCESSES))
    age_shift = rng.normal(0.0, 4.0)
    device = dict(zip((m.code for m in MEASUREMENTS), rng.normal(0.0, 0.2, len(MEASUREMENTS)), strict=True))
    unmeasured = sorted(rng.permutation(_OPTIONAL_LABS)[: (k - 1) % 4].tolist())
    groups = rng.dirichlet([6.0, 3.0, 2.0])
    # Golden-ratio steps spread the sites' prevalences over 0.15 to 0.29; equal ones in the control,
    # or a model could tell the label from the site's habits.
    prevalence = _MEAN_PREVALENCE + min(signal, 1.0) * 0.14 * ((k * 0.6180339887) % 1.0 - 0.5)

    subjects = k * 1_000_000 + np.arange(1, stays + 1)
    age = np.clip(rng.normal(64.0 + age_shift, 14.0, stays), 18.0, 90.0).round()
    female = rng.random(stays) < 0.45
    height = np.where(female, rng.normal(163.0, 7.0, stays), rng.normal(176.0, 7.0, stays)).round()
    height[rng.random(stays) < 0.25] = np.nan
    group = rng.choice(["ETHNICITY//A", "ETHNICITY//B", "ETHNICITY//C"], stays, p=groups)

    x, end, trend = _physiology(rng, case_mix, stays)
    score = _score(end, trend, age)
    intercept = _intercept(signal * score, prevalence)
    risk = 1.0 / (1.0 + np.exp(-(intercept + signal * score)))
    died = rng.random(stays) < risk
    length = 2.0 + np.exp(rng.normal(0.9, 0.5, stays) + 0.25 * signal * np.clip(end.mean(axis=1), -2, 2))
    admission = rng.integers(0, 5 * 365 * 24 * 60, stays)  # minutes after _FIRST_DAY

    dynamic = _observe(rng, x, female, device, unmeasured)
    frame = pl.DataFrame({"subject_id": subjects, "admission": admission}).with_columns(
        admission=pl.lit(_FIRST_DAY, pl.Datetime("us")) + pl.duration(minutes=pl.col("admission"))
    )
    keys = frame.with_row_index("stay").with_columns(pl.col("stay").cast(pl.Int64))
    dynamic = dynamic.join(keys, on="stay").with_columns(
        time=pl.col("admission") + pl.duration(minutes=pl.col("minute"))
    )
    static = _static(subjects, age, height, female, group)
    events = pl.concat([static, dynamic.select(EVENT_SCHEMA.names()).cast(EVENT_SCHEMA)])
    events = events.sort("subject_id", "time", "code", nulls_last=False)

    label_time = frame.select("subject_id", prediction_time=pl.col("admission") + pl.duration(hours=HOURS))
    labels = {
        "in_hospital_mortality": label_time.with_columns(boolean_value=pl.Series(died)),
        "length_of_stay": label_time.with_columns(float_value=pl.Series(length, dtype=pl.Float32).round(1)),
    }
    splits = stratified_splits(pl.DataFrame({"subject_id": subjects, "stratum": died}), seed)
    facts = {
        "prevalence": round(float(risk.mean()), 4),
        "bayes_auroc": round(bayes_auroc(risk), 4),
        "intercept": round(intercept, 4),
        "case_mix": {p: round(float(shift), 4) for p, shift in zip(PROCESSES, case_mix, strict=True)},
        "age_shift_years": round(float(age_shift), 2),
        "unmeasured": unmeasured,
        "device_offset_in_spreads": {code: round(float(offset), 4) for code, offset in device.items()},
    }
    return Hospital(name, events, splits, labels, code_table(unmeasured), risk, facts)


def _physiology(rng: np.random.Generator, case_mix: Floats, stays: int) -> tuple[Floats, Floats, Floats]:
    """Latent processes x (stays, processes, hours + 1), where they end, and their trends."""
    shape = (stays, len(PROCESSES))
    frailty = rng.normal(0.0, 0.4, (stays, 1))
    level = case_mix + frailty + rng.normal(0.0, 0.7, shape)
    trend = rng.normal(0.0, 1.0, shape)
    keep = np.exp(-1.0 / 6.0)  # the fluctuation forgets within 6 hours
    fluctuation = np.empty((*shape, HOURS + 1))
    fluctuation[..., 0] = rng.normal(0.0, 0.4, shape)
    for hour in range(1, HOURS + 1):
        fluctuation[..., hour] = keep * fluctuation[..., hour - 1] + rng.normal(
            0.0, 0.4 * np.sqrt(1.0 - keep**2), shape
        )
    progress = np.arange(HOURS + 1) / HOURS
    x = level[..., None] + trend[..., None] * progress + fluctuation
    return x, level + trend, trend


def _score(end: Floats, trend: Floats, age: Floats) -> Floats:
    interaction = end[:, 0] * end[:, 1]
    return np.asarray(end @ _END + trend @ _TREND + _INTERACTION * interaction + _AGE * (age - 64.0) / 14.0)


def _intercept(score: Floats, prevalence: float) -> float:
    """The intercept at which the mean risk is `prevalence` (bisection)."""
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        if (1.0 / (1.0 + np.exp(-(middle + score)))).mean() < prevalence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _observe(
    rng: np.random.Generator,
    x: Floats,
    female: npt.NDArray[np.bool_],
    device: Mapping[str, float],
    unmeasured: list[str],
) -> pl.DataFrame:
    """Rows `stay`, `minute` since admission (0 to 2,879), `code`, `numeric_value`."""
    severity = x[..., :HOURS].mean(axis=1)
    noise = np.where(female, _WEAK_NOISE, 1.0)
    parts = []
    for stream, rate in RATES.items():
        due = rng.random(severity.shape) < rate * np.exp(_SICKER_MORE_OFTEN * severity)
        if stream == "vitals":
            due[:, 0] = True  # every stay begins with a set of vitals
        stay, hour = np.nonzero(due)
        minute = hour * 60 + rng.integers(0, 60, len(hour))
        for m in MEASUREMENTS:
            if m.stream != stream:
                continue
            offset = rng.normal(0.0, _STAY_OFFSET, len(x)) * noise
            white = rng.normal(0.0, _WHITE_NOISE, len(stay)) * noise[stay]
            taken = rng.random(len(stay)) < _TAKEN
            view = x[stay, :, hour] @ np.array(m.loadings) + offset[stay] + white + device[m.code]
            value = np.clip(m.mean + m.spread * view, m.low, m.high).round(m.decimals)
            if m.code in unmeasured:  # drawn all the same: coverage then changes nothing else
                continue
            part = {"stay": stay[taken], "minute": minute[taken], "numeric_value": value[taken]}
            parts.append(pl.DataFrame(part).with_columns(code=pl.lit(m.code)))
    return pl.concat(parts)


def _static(
    subjects: npt.NDArray[np.int64],
    age: Floats,
    height: Floats,
    female: npt.NDArray[np.bool_],
    group: npt.NDArray[np.str_],
) -> pl.DataFrame:
    """Rows without a time: AGE, HEIGHT (where known), GENDER//F or //M, ETHNICITY//A, //B or //C."""
    rows = [
        pl.DataFrame({"subject_id": subjects, "code": "AGE", "numeric_value": age}),
        pl.DataFrame({"subject_id": subjects, "code": "HEIGHT", "numeric_value": height}).drop_nans(),
        pl.DataFrame({"subject_id": subjects, "code": np.where(female, "GENDER//F", "GENDER//M")}),
        pl.DataFrame({"subject_id": subjects, "code": group}),
    ]
    table = pl.concat(rows, how="diagonal").with_columns(time=pl.lit(None, pl.Datetime("us")))
    return table.select(EVENT_SCHEMA.names()).cast(EVENT_SCHEMA)
