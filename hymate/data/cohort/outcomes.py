"""What happens to the patients: every task's true risk, and the labels drawn from it.

    risk = sigmoid(intercept + signal * score)
    score = end . w_end + trend . w_trend + w_x circulation_end respiration_end + w_age (age - 64) / 14

`end` and `trend` are those of the latent processes, so every task looks at the same patient through
other weights. Two tasks have another form: length of stay in days is
2 + exp(N(0.9, 0.5) + 0.25 signal mean(end)), and `deterioration` listens to a marker that rises or
falls around a level which tells nothing (see `recording`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from hymate.data.cohort.codes import PROCESSES
from hymate.data.cohort.config import TASKS, SyntheticConfig, Task
from hymate.data.cohort.physiology import Floats, draw_course
from hymate.data.cohort.streams import Stream, generator

Booleans = npt.NDArray[np.bool_]

LENGTH_MINIMUM = 2.0
LENGTH_LOG_MEAN, LENGTH_LOG_SD = 0.9, 0.5
LENGTH_SEVERITY = 0.25
LENGTH_DECIMALS = 1
MARKER_SLOPE = 2.0
"""`deterioration`: log odds per standard deviation of the marker's slope."""
MEAN_PREVALENCE = 0.22


@dataclass(frozen=True)
class Weights:
    """What a binary task listens to; `prevalence` is its base rate in the reference population."""

    prevalence: float
    end: tuple[float, ...]
    trend: tuple[float, ...]
    interaction: float = 0.0
    age: float = 0.0

    def score(self, end: Floats, trend: Floats, age: Floats) -> Floats:
        """(..., processes) twice and (...): the score of each stay."""
        interaction = end[..., 0] * end[..., 1]
        linear = end @ np.array(self.end) + trend @ np.array(self.trend)
        return np.asarray(linear + self.interaction * interaction + self.age * (age - 64.0) / 14.0)

    def shifted(self, amounts: Floats, strength: float) -> Weights:
        """Every coefficient moved by `amounts` (10,), in units of `strength` times their root mean square."""
        flat = np.array([*self.end, *self.trend, self.interaction, self.age])
        moved = flat + strength * float(np.sqrt((flat**2).mean())) * amounts
        n = len(self.end)
        return replace(
            self,
            end=tuple(moved[:n]),
            trend=tuple(moved[n : 2 * n]),
            interaction=float(moved[2 * n]),
            age=float(moved[2 * n + 1]),
        )


WEIGHTS: dict[Task, Weights] = {
    "in_hospital_mortality": Weights(
        MEAN_PREVALENCE, (0.50, 0.45, 0.35, 0.30), (0.98, 0.86, 0.52, 0.63), 0.90, 0.35
    ),
    "readmission_30d": Weights(0.18, (0.20, 0.30, 0.90, 0.50), (0.20, 0.20, 0.50, 0.60), 0.0, 0.50),
    "phenotype_shock": Weights(0.15, (1.60, 0.10, 0.10, 0.60), (0.80, 0.0, 0.0, 0.0)),
    "phenotype_respiratory_failure": Weights(0.20, (0.20, 1.80, 0.0, 0.20), (0.0, 0.60, 0.0, 0.0)),
    "phenotype_kidney_injury": Weights(0.18, (0.10, 0.0, 1.80, 0.10), (0.0, 0.0, 0.80, 0.0), 0.0, 0.20),
    "phenotype_sepsis": Weights(0.12, (0.50, 0.20, 0.0, 1.50), (0.0, 0.0, 0.0, 0.80)),
}


@dataclass(frozen=True)
class Law:
    """How one hospital's patients come to one task's label.

    Logistic tasks: `weights`, `intercept`, `signal`. Length of stay: `signal`, `intercept` (added to the
    log), `tilt` (processes,) (added to the weights of `end`). `deterioration`: `intercept`, `signal`.
    """

    task: Task
    signal: float
    intercept: float
    weights: Weights | None = None
    tilt: tuple[float, ...] = (0.0,) * len(PROCESSES)
    threshold: float = 0.0

    def risk(self, end: Floats, trend: Floats, age: Floats, slope: Floats) -> Floats:
        """True probability of the label; for `length_of_stay` the expected days."""
        if self.weights is not None:
            return sigmoid(self.intercept + self.signal * self.weights.score(end, trend, age))
        if self.task == "deterioration":
            return sigmoid(self.intercept + self.signal * MARKER_SLOPE * slope)
        effect = self.length_effect(end)
        if self.task == "length_of_stay":
            return np.asarray(LENGTH_MINIMUM + np.exp(LENGTH_LOG_MEAN + effect + LENGTH_LOG_SD**2 / 2))
        z = (np.log(self.threshold - LENGTH_MINIMUM) - LENGTH_LOG_MEAN - effect) / LENGTH_LOG_SD
        return _upper_tail(z)

    def length_effect(self, end: Floats) -> Floats:
        """What the patient and the hospital add to the log of the days beyond the second."""
        severity = np.clip(end.mean(axis=-1) + end @ np.array(self.tilt), -2, 2)
        return np.asarray(LENGTH_SEVERITY * self.signal * severity + self.intercept)


def laws_of(
    config: SyntheticConfig, k: int, usual_end: Floats, trend: Floats, age: Floats
) -> dict[Task, Law]:
    """Hospital k's laws: of the tasks asked for, and of mortality and length of stay, which every cohort has.

    Args:
        usual_end, trend, age: of its stays as they would be without covariate shift: where
            `base: varied` fits the base rate of mortality to them, the shift must leave the law alone.
    """
    wanted = {"in_hospital_mortality", "length_of_stay", "long_stay", *config.tasks}
    return {task: _law(config, k, task, usual_end, trend, age) for task in TASKS if task in wanted}


def _law(config: SyntheticConfig, k: int, task: Task, end: Floats, trend: Floats, age: Floats) -> Law:
    signal = config.strength(task)
    # A long stay is a statement about the length of stay: they share their shifts.
    part = TASKS.index("length_of_stay" if task == "long_stay" else task)
    moved = config.label_shift * float(generator(config.seed, k, Stream.BASE_RATE, part).normal())
    amounts = generator(config.seed, k, Stream.CONCEPT, part).normal(size=2 * len(PROCESSES) + 2)
    if task in ("length_of_stay", "long_stay"):
        tilt = 0.25 * config.concept_shift * amounts[: len(PROCESSES)]
        # A label of 5.0 days may be 5.04 in truth: "longer than 5" means what a reader of the label sees.
        step = 10.0**-LENGTH_DECIMALS
        threshold = floor(config.long_stay_days / step + 1e-9) * step + step / 2
        return Law(task, signal, LENGTH_SEVERITY * moved, None, tuple(tilt), threshold)
    if task == "deterioration":
        return Law(task, signal * max(0.0, 1.0 + config.concept_shift * float(amounts[0])), moved)
    weights = WEIGHTS[task]
    usual = weights.score(end, trend, age)
    if task == "in_hospital_mortality" and config.base == "varied":
        intercept = intercept_for(signal * usual, usual_prevalence(k, signal))
    else:
        intercept = _reference_intercept(task, signal)
    if config.concept_shift:
        weights = weights.shifted(amounts, config.concept_shift)
        before = float(sigmoid(intercept + signal * usual).mean())
        intercept = intercept_for(signal * weights.score(end, trend, age), before)
    return Law(task, signal, intercept + moved, weights)


def usual_prevalence(k: int, signal: float) -> float:
    """Golden-ratio steps spread the sites' mortality over 0.15 to 0.29; equal ones in the control, or a
    model could tell the label from the site's habits."""
    return MEAN_PREVALENCE + min(signal, 1.0) * 0.14 * ((k * 0.6180339887) % 1.0 - 0.5)


@lru_cache
def reference_population() -> tuple[Floats, Floats, Floats]:
    """End, trend (n, processes) and age (n,) of the patients whom hospitals that are alike draw from."""
    rng = np.random.default_rng(20150101)
    n = 50_000
    level, trend = draw_course(rng, np.zeros(len(PROCESSES)), n)
    return level + trend, trend, np.clip(rng.normal(64.0, 14.0, n), 18.0, 90.0).round()


@lru_cache(maxsize=64)
def _reference_intercept(task: Task, signal: float) -> float:
    weights = WEIGHTS[task]
    return intercept_for(signal * weights.score(*reference_population()), weights.prevalence)


def intercept_for(score: Floats, prevalence: float) -> float:
    """The intercept at which the mean risk is `prevalence` (bisection)."""
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        if sigmoid(middle + score).mean() < prevalence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _upper_tail(z: Floats) -> Floats:
    """P(Z > z) of a standard normal Z."""
    return np.asarray(np.vectorize(NormalDist().cdf, otypes=[float])(-z))
