"""What no real hospital knows, gathered while the hospitals are made: the content of truth.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hymate.data.cohort.codes import PROCESSES
from hymate.data.cohort.config import SyntheticConfig, Task
from hymate.data.cohort.figures import bayes_auroc, binary_figures, length_figures
from hymate.data.cohort.hospital import WEAK_GROUP, WEAK_NOISE, Hospital, Outcome
from hymate.data.cohort.outcomes import WEIGHTS
from hymate.data.cohort.physiology import Floats
from hymate.data.cohort.recording import SICKER_MORE_OFTEN
from hymate.data.cohort.signals import known_signal


@dataclass
class _Gathered:
    """One task's truth over the hospitals seen so far, one array each."""

    outcomes: list[Outcome] = field(default_factory=list)
    groups: list[dict[str, npt.NDArray[np.bool_]]] = field(default_factory=list)

    def figures(self, task: Task, weak: Sequence[str]) -> dict[str, Any]:
        """Of all hospitals together, of every group, and of everyone outside each `weak` group."""
        whole = _joined(self.outcomes)
        names = sorted({name for groups in self.groups for name in groups})
        none = [np.zeros(len(outcome.risk), bool) for outcome in self.outcomes]
        members = {
            name: np.concatenate(
                [groups.get(name, nobody) for groups, nobody in zip(self.groups, none, strict=True)]
            )
            for name in names
        }
        others = {_others(code): ~members[code] for code in weak if code in members}
        return _with_groups(task, whole, members | others)


class Truth:
    """Gathers what is true of each hospital, and of all together."""

    def __init__(self, config: SyntheticConfig) -> None:
        self._config = config
        self._sites: dict[str, Any] = {}
        self._tasks = {task: _Gathered() for task in config.tasks}

    def add(self, hospital: Hospital) -> None:
        tasks = {}
        for task, outcome in hospital.outcomes.items():
            groups = {name: members[outcome.labelled] for name, members in hospital.groups.items()}
            self._tasks[task].outcomes.append(outcome)
            self._tasks[task].groups.append(groups)
            tasks[task] = _with_groups(task, outcome, groups)
        self._sites[hospital.name] = {**hospital.facts, "tasks": tasks}

    def content(self) -> dict[str, Any]:
        """JSON-ready; `bayes_auroc` is that of mortality over all hospitals, where it is a task."""
        config = self._config
        mortality = self._tasks.get("in_hospital_mortality")
        head = {"bayes_auroc": bayes_auroc(_joined(mortality.outcomes).risk)} if mortality is not None else {}
        weak = _weak_groups(config)
        codes = [str(group["code"]) for group in weak]
        figures = {task: gathered.figures(task, codes) for task, gathered in self._tasks.items()}
        return {
            "signal": config.signal,
            "seed": config.seed,
            **head,
            "config": config.model_dump(mode="json"),
            "processes": list(PROCESSES),
            "tasks": {
                task: {**_law(config, task), **figures[task], "signal_in": known_signal(config, task)}
                for task in config.tasks
            },
            "weak_groups": [{**group, "expected_gap": _gaps(figures, str(group["code"]))} for group in weak],
            "informative_sampling": {"log_rate_per_severity": SICKER_MORE_OFTEN},
            "sites": self._sites,
        }


def _law(config: SyntheticConfig, task: Task) -> dict[str, Any]:
    """The formula of `task` as words and numbers."""
    strength = config.strength(task)
    if task in WEIGHTS:
        weights = WEIGHTS[task]
        return {
            "label": f"{task} ~ Bernoulli(sigmoid(intercept + signal * score))",
            "signal": strength,
            "score": {
                "end": list(weights.end),
                "trend": list(weights.trend),
                "circulation_end_x_respiration_end": weights.interaction,
                "age": weights.age,
            },
        }
    label = {
        "length_of_stay": "days = 2 + exp(N(0.9, 0.5) + 0.25 * signal * mean(end))",
        "long_stay": f"length_of_stay > {config.long_stay_days:g}",
        "deterioration": "deterioration ~ Bernoulli(sigmoid(2 * signal * slope of the marker))",
    }
    return {"label": label[task], "signal": strength}


def _weak_groups(config: SyntheticConfig) -> list[dict[str, Any]]:
    """Who is served worse by design, and how."""
    planted = config.disparity
    weak: list[dict[str, Any]] = []
    if config.base == "varied":
        weak.append({"code": WEAK_GROUP, "noise_times": WEAK_NOISE})
    if planted.weakens_signal or planted.label_bias:
        weak.append(
            {
                "code": planted.group,
                "noise_times": planted.noise,
                "missing_share": planted.missing,
                "label_bias": planted.label_bias,
            }
        )
    return weak


def _gaps(figures: dict[Task, dict[str, Any]], code: str) -> dict[str, dict[str, float]]:
    """Per task: everyone else's figure less the group's, for each figure both have."""
    gaps: dict[str, dict[str, float]] = {}
    for task, told in figures.items():
        own, others = told["groups"].get(code, {}), told["groups"].get(_others(code), {})
        shared = [key for key in own if key in others and not key.endswith(("stays", "positives", "error"))]
        gaps[task] = {key: round(others[key] - own[key], 4) for key in shared}
    return gaps


def _others(code: str) -> str:
    return f"not {code}"


def _with_groups(task: Task, outcome: Outcome, groups: dict[str, npt.NDArray[np.bool_]]) -> dict[str, Any]:
    """Figures of all, and per group of at least two stays."""
    biased = not np.array_equal(outcome.risk, outcome.recorded_risk)

    def figures(who: npt.NDArray[np.bool_]) -> dict[str, Any]:
        risk, happened = outcome.risk[who], outcome.happened[who]
        observer = None if outcome.observer is None else outcome.observer[who]
        if task == "length_of_stay":
            return length_figures(risk, happened, observer)
        return binary_figures(risk, outcome.recorded_risk[who] if biased else None, happened, observer)

    told = {name: figures(members) for name, members in groups.items()}
    everyone = np.ones(len(outcome.risk), bool)
    return {**figures(everyone), "groups": {name: found for name, found in told.items() if found}}


def _joined(outcomes: list[Outcome]) -> Outcome:
    seen: list[Floats] = [outcome.observer for outcome in outcomes if outcome.observer is not None]
    return Outcome(
        labelled=np.concatenate([outcome.labelled for outcome in outcomes]),
        risk=np.concatenate([outcome.risk for outcome in outcomes]),
        recorded_risk=np.concatenate([outcome.recorded_risk for outcome in outcomes]),
        happened=np.concatenate([outcome.happened for outcome in outcomes]),
        label=np.concatenate([outcome.label for outcome in outcomes]),
        observer=np.concatenate(seen) if len(seen) == len(outcomes) else None,
    )
