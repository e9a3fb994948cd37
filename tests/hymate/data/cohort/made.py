"""Small cohorts on clean ground: hospitals that are alike but for the switches a test names."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.cohort.config import Task
from hymate.data.cohort.hospital import Hospital
from hymate.data.synthetic import Cohort, SyntheticConfig

MORTALITY: Task = "in_hospital_mortality"
LENGTH: Task = "length_of_stay"


def config(**switches: Any) -> SyntheticConfig:
    return SyntheticConfig.model_validate({"hospitals": 3, "stays": 60, "base": "alike", **switches})


def hospitals(**switches: Any) -> list[Hospital]:
    return list(Cohort(config(**switches)))


def dynamic(hospital: Hospital) -> pl.DataFrame:
    return hospital.events.drop_nulls("time")


def static(hospital: Hospital) -> pl.DataFrame:
    return hospital.events.filter(pl.col("time").is_null())


def labels(hospital: Hospital, task: Task = MORTALITY) -> npt.NDArray[Any]:
    table = hospital.labels[task].sort("subject_id")
    return table[table.columns[-1]].to_numpy()


def together(made: list[Hospital], task: Task, what: str) -> npt.NDArray[Any]:
    """`risk`, `recorded_risk`, `label`, ... of all hospitals, one below the other."""
    return np.concatenate([getattr(hospital.outcomes[task], what) for hospital in made])


def parts(hospital: Hospital) -> dict[str, pl.DataFrame]:
    """What a switch may change, piece by piece."""
    people = static(hospital)
    return {
        "observations": dynamic(hospital),
        "age": people.filter(pl.col("code") == "AGE"),
        "groups": people.filter(pl.col("numeric_value").is_null()),
        "splits": hospital.splits,
        "codes": hospital.codes,
        **{f"labels of {task}": table for task, table in hospital.labels.items()},
        **{
            f"risk of {task}": pl.DataFrame({"risk": outcome.risk})
            for task, outcome in hospital.outcomes.items()
        },
    }
