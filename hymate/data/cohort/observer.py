"""The perfect observer: what the record tells about the risk, to one who knows how it came about.

The true risk looks at the latent processes; a model sees noisy readings of them. Readings are linear
in the processes and everything is Gaussian, so level and trend given a stay's readings are Gaussian
too, with moments in closed form (Gaussian process regression: C. E. Rasmussen, C. K. I. Williams,
Gaussian Processes for Machine Learning, 2006, section 2.2). The observer's risk is the mean of the
true risk over that distribution. It knows case mix, devices and noise, reads the record before unit
and clock faults, takes rounding for noise and learns nothing from how often was measured. Its AUROC
is therefore a figure that can be reached, and nearly the best one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.cohort.codes import MARKER, MEASUREMENTS
from hymate.data.cohort.config import Task
from hymate.data.cohort.outcomes import Law
from hymate.data.cohort.physiology import (
    FLUCTUATION_SD,
    FRAILTY_SD,
    LEVEL_SD,
    MEMORY_H,
    TREND_SD,
    Floats,
)
from hymate.data.cohort.recording import (
    MARKER_MIDDLE_SD,
    MARKER_WHITE,
    STAY_OFFSET,
    WHITE_NOISE,
    Circumstances,
)
from hymate.data.cohort.sizes import HOURS

LATEST = 400
"""Readings of a stay that are used, from the latest back: the equations grow with their cube."""
_DRAWS = 128
_LOADINGS = np.array([m.loadings for m in MEASUREMENTS])
_SPREAD = np.array([m.spread for m in MEASUREMENTS])
_ROUNDING = np.array([10.0**-m.decimals for m in MEASUREMENTS]) / _SPREAD
_P = _LOADINGS.shape[1]


def observed_risk(
    rows: pl.DataFrame,
    laws: Mapping[Task, Law],
    case_mix: Floats,
    age: Floats,
    circumstances: Circumstances,
) -> dict[Task, Floats]:
    """Each task's risk (expected days for `length_of_stay`) given the record, (stays,) each.

    Args:
        rows: as `recording.record` gives them.
        case_mix: (processes,) mean of the levels at this hospital.
        age: (stays,).
    """
    readings = _standardised(rows, circumstances)
    first = np.searchsorted(readings["stay"].to_numpy(), np.arange(len(age) + 1))
    code, second, view = (readings[name].to_numpy() for name in ("index", "second", "view"))
    slopes = _slopes(rows, circumstances.noise)
    shared = np.random.default_rng(20150102).normal(size=(_DRAWS // 2, 2 * _P))
    draws = np.concatenate([shared, -shared])
    found: dict[Task, list[float]] = {task: [] for task in laws}
    for stay in range(len(age)):
        mine = slice(max(first[stay], first[stay + 1] - LATEST), first[stay + 1])
        mean, root = _course(
            code[mine], second[mine] // 3600, view[mine], case_mix, circumstances.noise[stay]
        )
        course = mean + draws @ root.T
        level, trend = course[:, :_P], course[:, _P:]
        slope = slopes[0][stay] + slopes[1][stay] * draws[:, 0]
        for task, law in laws.items():
            found[task].append(float(law.risk(level + trend, trend, age[stay], slope).mean()))
    return {task: np.array(risks) for task, risks in found.items()}


def _standardised(rows: pl.DataFrame, circumstances: Circumstances) -> pl.DataFrame:
    """Readings of the usual codes as `index` of the code and `view` in spreads, by stay and time."""
    codes = pl.DataFrame(
        {
            "code": [m.code for m in MEASUREMENTS],
            "index": np.arange(len(MEASUREMENTS)),
            "mean": [float(m.mean) for m in MEASUREMENTS],
            "spread": _SPREAD,
            "device": [circumstances.device[m.code] for m in MEASUREMENTS],
        }
    )
    return (
        rows.join(codes, on="code", how="inner")
        .with_columns(view=(pl.col("numeric_value") - pl.col("mean")) / pl.col("spread") - pl.col("device"))
        .sort("stay", "second", "index")
    )


def _course(
    code: npt.NDArray[np.int64], hour: npt.NDArray[np.int64], view: Floats, case_mix: Floats, noise: float
) -> tuple[Floats, Floats]:
    """Mean (2 processes,) of level and trend given the readings, and a root of their covariance."""
    prior = np.zeros((2 * _P, 2 * _P))
    prior[:_P, :_P] = FRAILTY_SD**2 + LEVEL_SD**2 * np.eye(_P)
    prior[_P:, _P:] = TREND_SD**2 * np.eye(_P)
    mean = np.concatenate([case_mix, np.zeros(_P)])
    loadings = _LOADINGS[code]
    design = np.hstack([loadings, loadings * (hour / HOURS)[:, None]])
    apart = np.abs(hour[:, None] - hour[None, :])
    shared = loadings @ loadings.T * FLUCTUATION_SD**2 * np.exp(-apart / MEMORY_H)
    offset = (STAY_OFFSET * noise) ** 2 * (code[:, None] == code[None, :])
    white = (WHITE_NOISE * noise) ** 2 + _ROUNDING[code] ** 2 / 12
    covariance = design @ prior @ design.T + shared + offset + np.diag(white)
    gain = np.linalg.solve(covariance, design @ prior).T
    posterior = prior - gain @ design @ prior
    return mean + gain @ (view - design @ mean), np.linalg.cholesky((posterior + posterior.T) / 2)


def _slopes(rows: pl.DataFrame, noise: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the marker's slope given its readings, (stays,) each."""
    stays = len(noise)
    marker = rows.filter(pl.col("code") == MARKER.code)
    stay = marker["stay"].to_numpy()
    progress = (marker["second"].to_numpy() + 30) / (HOURS * 3600) - 0.5
    view = (marker["numeric_value"].to_numpy() - MARKER.mean) / MARKER.spread
    precision = (MARKER_WHITE * noise[stay]) ** -2.0

    def total(weights: Floats) -> Floats:
        return np.asarray(np.bincount(stay, weights=weights * precision, minlength=stays), np.float64)

    # Two unknowns, middle and slope: the normal equations by hand, all stays at once.
    middle = total(np.ones(len(stay))) + MARKER_MIDDLE_SD**-2.0
    cross, slope = total(progress), total(progress**2) + 1.0
    determinant = middle * slope - cross**2
    mean = (middle * total(progress * view) - cross * total(view)) / determinant
    return mean, np.sqrt(middle / determinant)
