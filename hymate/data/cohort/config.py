"""What a made-up cohort is asked to be: its size, its tasks, and the switches that plant a fault.

Every switch is off by default and has a strength. `base: alike` with no switch gives hospitals that
are random parts of one population: the ground on which a single switch can be studied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from hymate.config import Frozen

Strength = Annotated[float, Field(ge=0.0, le=5.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Stays = Annotated[int, Field(ge=10, le=500_000)]

Task = Literal[
    "in_hospital_mortality",
    "length_of_stay",
    "long_stay",
    "readmission_30d",
    "phenotype_shock",
    "phenotype_respiratory_failure",
    "phenotype_kidney_injury",
    "phenotype_sepsis",
    "deterioration",
]
Group = Literal[
    "GENDER//F",
    "GENDER//M",
    "ETHNICITY//A",
    "ETHNICITY//B",
    "ETHNICITY//C",
    "UNIT//MEDICAL",
    "UNIT//SURGICAL",
    "UNIT//CARDIAC",
    "INSURANCE//PUBLIC",
    "INSURANCE//PRIVATE",
    "INSURANCE//NONE",
]
TASKS: tuple[Task, ...] = get_args(Task)

MOST_STAYS = 2_000_000
"""Stays of a whole cohort; a larger one is refused before anything is written."""
MOST_TRIPLETS_A_HOSPITAL = 30_000_000
"""Expected triplets of one hospital, which is made in memory: about 3 GiB."""


class SizesConfig(Frozen):
    """How many stays each hospital has."""

    distribution: Literal["equal", "lognormal", "zipf", "list"] = "equal"
    """equal: `stays` each; lognormal: median `stays`; zipf: hospital k has stays / k^spread; list: `each`."""
    spread: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """lognormal: standard deviation of log stays; zipf: the exponent."""
    smallest: Stays = 20
    largest: Stays = 20_000
    """lognormal and zipf: no hospital is smaller or larger."""
    each: tuple[Stays, ...] = ()
    """list: stays of hospital 1, 2, ..."""

    @model_validator(mode="after")
    def _consistent(self) -> SizesConfig:
        if self.smallest > self.largest:
            raise ValueError(f"sizes.smallest {self.smallest} is above sizes.largest {self.largest}")
        if bool(self.each) != (self.distribution == "list"):
            raise ValueError("sizes.each and sizes.distribution: list belong together")
        return self


class ObservationsConfig(Frozen):
    """How many triplets a stay has: about 75 where nothing is set."""

    factor: Annotated[float, Field(gt=0.0, le=200.0)] = 1.0
    """Every stay is measured this many times as often."""
    spread: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Standard deviation of the log of a stay's own factor (its mean stays 1)."""
    long_share: Share = 0.0
    """Share of stays under continuous monitoring, for tests of long context."""
    long_count: Annotated[int, Field(ge=100, le=50_000)] = 12_000
    """Triplets such a stay has, in expectation for a patient of average severity."""


class UnitErrorsConfig(Frozen):
    """Codes reported in another unit than the other hospitals use."""

    share: Share = 0.0
    """Chance that a hospital reports a code (of those that have another usual unit) in that unit."""
    declared: bool = False
    """true: codes.parquet says so; false: it names the common unit all the same."""


class ClocksConfig(Frozen):
    """Rows recorded twice, and hospitals whose monitors run on another time than their admissions."""

    duplicated_rows: Share = 0.0
    """Share of observations written twice, identical."""
    shifted_share: Share = 0.0
    """Chance that a hospital's observations are shifted; prediction times are not."""
    shifted_hours: Annotated[float, Field(gt=0.0, le=24.0)] = 6.0
    """How far: early or late, the whole hospital alike."""
    time_zone: bool = False
    """true: a whole number of hours from 1 to `shifted_hours`, as a wrong time zone would."""

    @model_validator(mode="after")
    def _whole_hours(self) -> ClocksConfig:
        if self.time_zone and self.shifted_hours < 1:
            raise ValueError("clocks.time_zone shifts by whole hours: shifted_hours must be at least 1")
        return self


class DisparityConfig(Frozen):
    """One group that is served worse: in what is measured of it, or in what is written down about it."""

    group: Group = "ETHNICITY//C"
    noise: Annotated[float, Field(ge=1.0, le=20.0)] = 1.0
    """Its measurements are this many times as noisy; the risk stays the same."""
    missing: Annotated[float, Field(ge=0.0, le=0.95)] = 0.0
    """Share of its observations that are lost."""
    label_bias: Share = 0.0
    """Share of its positive labels that are recorded as negative (binary tasks)."""

    @property
    def weakens_signal(self) -> bool:
        return self.noise > 1.0 or self.missing > 0.0


class SyntheticConfig(Frozen):
    """A cohort of made-up hospitals whose truth is known; docs/synthetic.md has the formulas."""

    hospitals: Annotated[int, Field(ge=1, le=1000)] = 4
    stays: Stays = 600
    """Stays a hospital, one per subject; see `sizes`."""
    sizes: SizesConfig = SizesConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    signal: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    """How strongly labels depend on the patient; 0: the negative control, labels independent of the data."""
    signals: dict[Task, Annotated[float, Field(ge=0.0, le=10.0)]] = Field(default_factory=dict)
    """Another strength for single tasks."""
    base: Literal["varied", "alike"] = "varied"
    """varied: hospitals differ mildly in case mix, age, devices, optional labs and base rate, and women's
    measurements are 4 times as noisy. alike: nothing of it; only the switches below make a difference."""
    tasks: tuple[Task, ...] = Field(default=("in_hospital_mortality", "length_of_stay"), min_length=1)
    """Label sets to write; `deterioration` brings a code whose order in time alone tells."""
    long_stay_days: Annotated[float, Field(gt=2.0, le=30.0)] = 5.0
    """`long_stay`: longer than this."""
    demographics: Literal["basic", "full"] = "basic"
    """basic: age, height, sex, ethnicity; full: also the unit's type and the insurance."""
    observations: ObservationsConfig = ObservationsConfig()

    covariate_shift: Strength = 0.0
    """Hospitals differ in whom they treat: 1 = SD of 0.5 a process and 8 years of age. P(y | x) stays."""
    label_shift: Strength = 0.0
    """Hospitals differ in base rate: SD of the log odds (length of stay: 0.25 of it, in log days)."""
    concept_shift: Strength = 0.0
    """The truth's coefficients differ: SD relative to their root mean square. Base rates stay."""
    coverage_gaps: Annotated[float, Field(ge=0.0, le=0.95)] = 0.0
    """Chance that a hospital never measures a code (heart rate is always measured)."""
    unit_errors: UnitErrorsConfig = UnitErrorsConfig()
    clocks: ClocksConfig = ClocksConfig()
    severe_missing: Annotated[float, Field(ge=0.0, le=0.95)] = 0.0
    """Observations are lost more often the sicker the patient: this share of them at the very sickest."""
    disparity: DisparityConfig = DisparityConfig()
    decoys: Annotated[int, Field(ge=0, le=50)] = 0
    """Codes of pure noise, measured at times that tell nothing: for tests of explanations."""
    observer: bool = False
    """Work out the risk a perfect observer of the record would state (0.5 ms a stay); always done where
    `disparity` weakens a group's signal, whose expected gap it is."""

    @model_validator(mode="after")
    def _consistent(self) -> SyntheticConfig:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks: each once")
        if "long_stay" in self.signals:
            raise ValueError("signals: long_stay follows length_of_stay; set that one")
        named = len(self.sizes.each)
        if self.sizes.distribution == "list" and named != self.hospitals:
            raise ValueError(f"sizes.each lists {named} hospitals, but hospitals is {self.hospitals}")
        group = self.disparity.group
        if self.demographics == "basic" and group.startswith(("UNIT//", "INSURANCE//")):
            raise ValueError(f"disparity.group {group} needs demographics: full")
        return self

    def strength(self, task: Task) -> float:
        """The signal of `task`."""
        followed: Task = "length_of_stay" if task == "long_stay" else task
        return self.signals.get(followed, self.signal)

    @property
    def runs_observer(self) -> bool:
        return self.observer or self.disparity.weakens_signal

    def numbers(self) -> Iterator[int]:
        """1, 2, ...: the hospitals' k."""
        return iter(range(1, self.hospitals + 1))

    def name(self, k: int) -> str:
        return f"hospital_{k:0{len(str(self.hospitals))}d}"
