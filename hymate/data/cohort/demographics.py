"""Who the patients are, and the groups that fairness is asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from hymate.data.cohort.config import SyntheticConfig
from hymate.data.cohort.physiology import Floats
from hymate.data.cohort.streams import Stream, generator
from hymate.data.meds import EVENT_SCHEMA

Booleans = npt.NDArray[np.bool_]

ETHNICITIES = ("ETHNICITY//A", "ETHNICITY//B", "ETHNICITY//C")
_UNITS = (("UNIT//MEDICAL", 0.5), ("UNIT//SURGICAL", 0.3), ("UNIT//CARDIAC", 0.2))
_INSURANCES = (("INSURANCE//PUBLIC", 0.5), ("INSURANCE//PRIVATE", 0.38), ("INSURANCE//NONE", 0.12))
ELDERLY = 65.0
AGE_MEAN, AGE_SD = 64.0, 14.0


@dataclass(frozen=True)
class Demographics:
    """One entry a stay. `usual_age` is the age without covariate shift; `height` NaN = unknown.

    `categories` are the static codes without a number: one array (stays,) of codes per kind.
    """

    age: Floats
    usual_age: Floats
    height: Floats
    categories: tuple[npt.NDArray[np.str_], ...]

    def members(self, group: str) -> Booleans:
        """Whose static codes include `group`."""
        return np.asarray(np.any([kind == group for kind in self.categories], axis=0))

    def groups(self) -> dict[str, Booleans]:
        """Every group that the truth is told for: each category, and age below and from 65."""
        named = {str(code): kind == code for kind in self.categories for code in np.unique(kind)}
        elderly = self.age >= ELDERLY
        return {**dict(sorted(named.items())), "AGE//<65": ~elderly, "AGE//65+": elderly}

    def rows(self, subjects: npt.NDArray[np.int64]) -> pl.DataFrame:
        """As MEDS events without a time."""
        numbers = [
            pl.DataFrame({"subject_id": subjects, "code": "AGE", "numeric_value": self.age}),
            pl.DataFrame(
                {"subject_id": subjects, "code": "HEIGHT", "numeric_value": self.height}
            ).drop_nans(),
        ]
        codes = [pl.DataFrame({"subject_id": subjects, "code": kind}) for kind in self.categories]
        table = pl.concat(numbers + codes, how="diagonal").with_columns(time=pl.lit(None, pl.Datetime("us")))
        return table.select(EVENT_SCHEMA.names()).cast(EVENT_SCHEMA)


def draw_demographics(
    rng: np.random.Generator,
    config: SyntheticConfig,
    k: int,
    stays: int,
    *,
    age_shift: float,
    more_age_shift: float,
    ethnicity: Floats,
) -> Demographics:
    """Patients of hospital k; `age_shift` (years) is its own nature, `more_age_shift` a switch's.

    `ethnicity` are the probabilities of `ETHNICITIES`.
    """
    drawn = rng.normal(AGE_MEAN + age_shift, AGE_SD, stays)
    female = rng.random(stays) < 0.45
    height = np.where(female, rng.normal(163.0, 7.0, stays), rng.normal(176.0, 7.0, stays)).round()
    height[rng.random(stays) < 0.25] = np.nan
    categories = [
        np.where(female, "GENDER//F", "GENDER//M"),
        rng.choice(np.array(ETHNICITIES), stays, p=ethnicity),
    ]
    if config.demographics == "full":
        own = generator(config.seed, k, Stream.DEMOGRAPHICS)
        for kind in (_UNITS, _INSURANCES):
            names, shares = zip(*kind, strict=True)
            categories.append(own.choice(np.array(names), stays, p=np.array(shares)))
    return Demographics(
        age=_plausible(drawn + more_age_shift),
        usual_age=_plausible(drawn),
        height=height,
        categories=tuple(categories),
    )


def _plausible(age: Floats) -> Floats:
    return np.asarray(np.clip(age, 18.0, 90.0).round())
