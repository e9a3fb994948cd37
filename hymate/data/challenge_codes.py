"""The codes a PhysioNet 2012 site writes: the challenge's own names, with units and meaning."""

from __future__ import annotations

import polars as pl

ICU_TYPES = {1: "coronary_care", 2: "cardiac_surgery", 3: "medical", 4: "surgical"}
"""The challenge's ICUType."""

PARAMETERS: dict[str, tuple[str, str]] = {
    "ALP": ("IU/L", "Alkaline phosphatase"),
    "ALT": ("IU/L", "Alanine transaminase"),
    "AST": ("IU/L", "Aspartate transaminase"),
    "Albumin": ("g/dL", "Albumin"),
    "BUN": ("mg/dL", "Blood urea nitrogen"),
    "Bilirubin": ("mg/dL", "Bilirubin"),
    "Cholesterol": ("mg/dL", "Cholesterol"),
    "Creatinine": ("mg/dL", "Serum creatinine"),
    "DiasABP": ("mmHg", "Invasive diastolic arterial blood pressure"),
    "FiO2": ("fraction", "Fractional inspired oxygen, 0 to 1"),
    "GCS": ("score", "Glasgow coma score, 3 to 15"),
    "Glucose": ("mg/dL", "Serum glucose"),
    "HCO3": ("mmol/L", "Serum bicarbonate"),
    "HCT": ("%", "Hematocrit"),
    "HR": ("bpm", "Heart rate"),
    "K": ("mEq/L", "Serum potassium"),
    "Lactate": ("mmol/L", "Lactate"),
    "MAP": ("mmHg", "Invasive mean arterial blood pressure"),
    "MechVent": ("0/1", "Mechanical ventilation"),
    "Mg": ("mmol/L", "Serum magnesium"),
    "NIDiasABP": ("mmHg", "Non-invasive diastolic arterial blood pressure"),
    "NIMAP": ("mmHg", "Non-invasive mean arterial blood pressure"),
    "NISysABP": ("mmHg", "Non-invasive systolic arterial blood pressure"),
    "Na": ("mEq/L", "Serum sodium"),
    "PaCO2": ("mmHg", "Partial pressure of arterial carbon dioxide"),
    "PaO2": ("mmHg", "Partial pressure of arterial oxygen"),
    "Platelets": ("cells/nL", "Platelets"),
    "RespRate": ("breaths/min", "Respiration rate"),
    "SaO2": ("%", "Oxygen saturation in hemoglobin"),
    "SysABP": ("mmHg", "Invasive systolic arterial blood pressure"),
    "Temp": ("°C", "Temperature"),
    "TroponinI": ("µg/L", "Troponin I"),
    "TroponinT": ("µg/L", "Troponin T"),
    "Urine": ("mL", "Urine output"),
    "WBC": ("cells/nL", "White blood cell count"),
    "Weight": ("kg", "Weight"),
    "pH": ("pH", "Arterial pH, 0 to 14"),
}
"""Dynamic parameter -> (unit, description), from the challenge's own list of variables."""

STATIC: dict[str, tuple[str | None, str]] = {
    "AGE": ("years", "Age at admission"),
    "HEIGHT": ("cm", "Height"),
    "GENDER//F": (None, "Female"),
    "GENDER//M": (None, "Male"),
    **{f"ICU_TYPE//{name}": (None, f"Admitted to a unit of type {name}") for name in ICU_TYPES.values()},
}
"""Static code -> (unit, description)."""


def code_table() -> pl.DataFrame:
    """All codes as MEDS' codes.parquet wants them, with the extra column `unit`."""
    rows = [(code, unit, description) for code, (unit, description) in {**PARAMETERS, **STATIC}.items()]
    schema = {"code": pl.String, "unit": pl.String, "description": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")
