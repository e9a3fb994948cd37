"""What synthetic hospitals measure: names, units, ranges, and which latent process each code shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import polars as pl

PROCESSES = ("circulation", "respiration", "kidney", "infection")


class Measurement(NamedTuple):
    """One code: `mean + spread * (loadings . x + noise)`, rounded and clipped to [low, high]."""

    code: str
    unit: str
    description: str
    stream: str
    mean: float
    spread: float
    loadings: tuple[float, float, float, float]
    low: float
    high: float
    decimals: int


MEASUREMENTS = (
    Measurement("HR", "bpm", "Heart rate", "vitals", 86, 12, (0.8, 0.2, 0.0, 0.4), 30, 220, 0),
    Measurement("SBP", "mmHg", "Systolic blood pressure", "vitals", 121, 14, (-0.9, 0, 0, -0.2), 45, 240, 0),
    Measurement("DBP", "mmHg", "Diastolic blood pressure", "vitals", 63, 9, (-0.7, 0, 0, -0.2), 20, 140, 0),
    Measurement("RR", "breaths/min", "Respiratory rate", "vitals", 19, 4, (0.1, 0.9, 0, 0.2), 5, 60, 0),
    Measurement("SpO2", "%", "Oxygen saturation", "vitals", 96, 2, (0, -0.9, 0, 0), 60, 100, 0),
    Measurement("Temp", "°C", "Body temperature", "temperature", 37.1, 0.6, (0, 0, 0, 0.9), 32, 42, 1),
    Measurement("GCS", "score", "Glasgow coma scale", "neuro", 12.5, 2.2, (-0.4, -0.4, -0.3, -0.3), 3, 15, 0),
    Measurement(
        "UrineOutput", "mL", "Urine since last reading", "urine", 150, 60, (-0.4, 0, -0.8, 0), 0, 900, 0
    ),
    Measurement("Na", "mmol/L", "Sodium", "chemistry", 139, 4, (0, 0, 0.2, 0), 110, 170, 0),
    Measurement("K", "mmol/L", "Potassium", "chemistry", 4.2, 0.5, (0, 0, 0.5, 0), 2, 8, 1),
    Measurement("Creatinine", "mg/dL", "Creatinine", "chemistry", 1.6, 0.6, (0.1, 0, 0.9, 0), 0.2, 12, 1),
    Measurement("BUN", "mg/dL", "Blood urea nitrogen", "chemistry", 28, 11, (0.1, 0, 0.8, 0), 2, 150, 0),
    Measurement("Glucose", "mg/dL", "Glucose", "chemistry", 138, 34, (0.2, 0, 0, 0.3), 35, 600, 0),
    Measurement("WBC", "10^9/L", "White blood cells", "blood_count", 12, 4, (0, 0, 0, 0.9), 0.5, 60, 1),
    Measurement("Platelets", "10^9/L", "Platelets", "blood_count", 205, 75, (0, 0, -0.2, -0.5), 5, 800, 0),
    Measurement("pH", "pH", "Arterial pH", "blood_gas", 7.37, 0.06, (-0.4, -0.6, -0.3, 0), 6.8, 7.7, 2),
    Measurement("Lactate", "mmol/L", "Lactate", "blood_gas", 2.4, 1.0, (1.0, 0.2, 0, 0.2), 0.3, 20, 1),
    Measurement("Bilirubin", "mg/dL", "Total bilirubin", "liver", 1.6, 0.8, (0.2, 0, 0.3, 0.4), 0.1, 30, 1),
)
# Rounds per hour of each stream for a patient of average severity.
RATES = {
    "vitals": 0.15,
    "temperature": 0.11,
    "neuro": 0.11,
    "urine": 0.12,
    "chemistry": 0.050,
    "blood_count": 0.045,
    "blood_gas": 0.045,
    "liver": 0.025,
}
ALWAYS_MEASURED = "HR"
MARKER = Measurement(
    "Marker", "ng/mL", "Only its order in time tells", "marker", 100, 10, (0.0, 0.0, 0.0, 0.0), -1e6, 1e6, 2
)
"""Comes with the task `deterioration`; `recording` says what it shows."""
MARKER_RATE = 0.25
"""Readings per hour of the marker and of each decoy, whoever the patient is."""


class OtherUnit(NamedTuple):
    """`value * factor + plus`, rounded, is what a hospital with this unit writes."""

    unit: str
    factor: float
    plus: float
    decimals: int


OTHER_UNITS = {
    "SBP": OtherUnit("kPa", 0.133322, 0.0, 1),
    "DBP": OtherUnit("kPa", 0.133322, 0.0, 1),
    "Temp": OtherUnit("°F", 1.8, 32.0, 1),
    "Na": OtherUnit("mg/dL", 2.299, 0.0, 0),
    "K": OtherUnit("mg/dL", 3.9098, 0.0, 1),
    "Creatinine": OtherUnit("µmol/L", 88.42, 0.0, 0),
    "BUN": OtherUnit("mmol/L", 0.357, 0.0, 1),
    "Glucose": OtherUnit("mmol/L", 0.0555, 0.0, 1),
    "WBC": OtherUnit("cells/µL", 1000.0, 0.0, 0),
    "Lactate": OtherUnit("mg/dL", 9.008, 0.0, 0),
    "Bilirubin": OtherUnit("µmol/L", 17.1, 0.0, 0),
}
"""The other unit in use for a code, where there is one."""

STATIC = {
    "AGE": ("years", "Age at admission"),
    "HEIGHT": ("cm", "Height"),
    "GENDER//F": (None, "Female"),
    "GENDER//M": (None, "Male"),
    "ETHNICITY//A": (None, "Ethnicity, group A"),
    "ETHNICITY//B": (None, "Ethnicity, group B"),
    "ETHNICITY//C": (None, "Ethnicity, group C"),
}
MORE_STATIC = {
    "UNIT//MEDICAL": (None, "Medical intensive care unit"),
    "UNIT//SURGICAL": (None, "Surgical intensive care unit"),
    "UNIT//CARDIAC": (None, "Cardiac intensive care unit"),
    "INSURANCE//PUBLIC": (None, "Public insurance"),
    "INSURANCE//PRIVATE": (None, "Private insurance"),
    "INSURANCE//NONE": (None, "No insurance"),
}
"""`demographics: full` has these too."""


def decoy(number: int) -> Measurement:
    """A code that shows nothing at all (1, 2, ...)."""
    return Measurement(
        f"DECOY//{number}", "units", "Noise", "decoy", 50, 10, (0.0, 0.0, 0.0, 0.0), -1e6, 1e6, 1
    )


def code_table(
    unmeasured: Collection[str],
    *,
    more: Collection[Measurement] = (),
    more_static: bool = False,
    units: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """What a hospital that never measures `unmeasured` declares in codes.parquet.

    Args:
        more: codes beyond `MEASUREMENTS`.
        more_static: with `MORE_STATIC`.
        units: code -> unit, where the hospital declares another than the usual one.
    """
    declared = units or {}
    rows: list[tuple[str, str | None, str]] = [
        (m.code, declared.get(m.code, m.unit), m.description)
        for m in (*MEASUREMENTS, *more)
        if m.code not in unmeasured
    ]
    static = {**STATIC, **MORE_STATIC} if more_static else STATIC
    rows += [(code, unit, description) for code, (unit, description) in static.items()]
    schema = {"code": pl.String, "unit": pl.String, "description": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")
