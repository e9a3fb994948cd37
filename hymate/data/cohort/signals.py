"""Which codes carry a task's signal: what an explanation of a good model should find."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from hymate.data.cohort.codes import MARKER, MEASUREMENTS, decoy
from hymate.data.cohort.config import SyntheticConfig, Task
from hymate.data.cohort.outcomes import WEIGHTS, reference_population
from hymate.data.cohort.physiology import FLUCTUATION_SD
from hymate.data.cohort.recording import STAY_OFFSET, WHITE_NOISE

LITTLE = 0.25
"""Correlation with the score from which a code counts as important."""
_NOISE = STAY_OFFSET**2 + WHITE_NOISE**2


def known_signal(config: SyntheticConfig, task: Task) -> dict[str, Any]:
    """What is known about the codes for `task`, JSON-ready.

    `codes` maps each usual code to the correlation, over the reference population, between the score and
    one reading at the end of the window; `important` are those of at least 0.25 in size, strongest first;
    `none` lists the codes that tell nothing at all: every code, where the signal is 0.
    """
    nothing = [decoy(number).code for number in range(1, config.decoys + 1)]
    if config.strength(task) == 0:
        return {"important": [], "codes": {}, "none": [*(m.code for m in MEASUREMENTS), *nothing]}
    if task == "deterioration":
        none = [m.code for m in MEASUREMENTS] + nothing
        return {"important": [MARKER.code], "order_only": [MARKER.code], "codes": {}, "none": none}
    codes = _correlations(task)
    strong = sorted((code for code in codes if abs(codes[code]) >= LITTLE), key=lambda c: -abs(codes[c]))
    if "deterioration" in config.tasks:
        nothing.append(MARKER.code)
    return {"important": strong, "codes": dict(codes), "none": nothing}


@lru_cache
def _correlations(task: Task) -> dict[str, float]:
    end, trend, age = reference_population()
    weights = WEIGHTS.get(task)
    score = end.mean(axis=1) if weights is None else weights.score(end, trend, age)
    found = {}
    for m in MEASUREMENTS:
        loadings = np.array(m.loadings)
        view = end @ loadings
        reading = view.var() + FLUCTUATION_SD**2 * float(loadings @ loadings) + _NOISE
        found[m.code] = round(float(np.cov(score, view)[0, 1] / np.sqrt(score.var() * reading)), 3)
    return found
