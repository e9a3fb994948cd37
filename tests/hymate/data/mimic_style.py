"""Small MEDS data sets in the code style of the MIMIC-IV MEDS ETL: shards, extra columns, static rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from meds.schema import DataSchema, SubjectSplitSchema

ADMITTED = "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM"
TRANSFERRED = "HOSPITAL_ADMISSION//URGENT//TRANSFER FROM HOSPITAL"
HOME = "HOSPITAL_DISCHARGE//HOME"
HOSPICE = "HOSPITAL_DISCHARGE//HOSPICE"
DIED = "HOSPITAL_DISCHARGE//DIED"
ICU_IN = "ICU_ADMISSION//Medical Intensive Care Unit (MICU)"
ICU_OUT = "ICU_DISCHARGE//Medical Intensive Care Unit (MICU)"
ICU_NEXT = "ICU_ADMISSION//Cardiac Vascular Intensive Care Unit (CVICU)"
ICU_END = "ICU_DISCHARGE//Cardiac Vascular Intensive Care Unit (CVICU)"
DEATH = "MEDS_DEATH"

START = datetime(2150, 3, 1, 8)

Event = tuple[float | datetime, str]
"""(hours since START, or a time; code)"""


def moment(when: float | datetime) -> datetime:
    """Hours since START, or the time itself."""
    return when if isinstance(when, datetime) else START + timedelta(seconds=round(3600 * when))


def write_meds(root: Path, subjects: Mapping[int, Sequence[Event]], *, labs: int = 0) -> Path:
    """One data set in three shards: every third subject is held out, the others train in two shards.

    Each subject also has a sex without a time, a birth, and laboratory values from its first event on.
    """
    rows: list[tuple[int, datetime | None, str, float | None, int | None]] = []
    for subject, events in subjects.items():
        first = min(moment(when) for when, _ in events)
        rows += [(subject, None, "GENDER//F" if subject % 2 else "GENDER//M", None, None)]
        rows += [(subject, datetime(first.year - 60, 1, 1), "MEDS_BIRTH", None, None)]
        rows += [(subject, moment(when), code, None, 20_000_000 + subject) for when, code in events]
        for lab in range(labs):
            time = first + timedelta(minutes=17 + 61 * lab)
            value = 3.5 + (subject * 7 + lab * 3) % 11 / 10
            code = ("LAB//RESULT//50912//mg/dL", "LAB//220045//bpm")[lab % 2]
            rows += [(subject, time, code, value, 20_000_000 + subject)]
    schema: dict[str, Any] = {
        "subject_id": pl.Int64,
        "time": pl.Datetime("us"),
        "code": pl.String,
        "numeric_value": pl.Float32,
        "hadm_id": pl.Int64,
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    # As the ETL leaves it: by time, events of one moment in no meaningful order.
    table = table.sort("subject_id", "time", "code", nulls_last=False)
    ordered = sorted(subjects)
    shards = {"held_out/0": ordered[::3], "train/0": ordered[1::3], "train/1": ordered[2::3]}
    for name, members in shards.items():
        path = root / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        shard = table.filter(pl.col("subject_id").is_in(members))
        pq.write_table(DataSchema.align(shard.to_arrow()), path)
    split = [("held_out", "train", "train")[place % 3] for place in range(len(ordered))]
    splits = pl.DataFrame({"subject_id": ordered, "split": split})
    (root / "metadata").mkdir()
    pq.write_table(SubjectSplitSchema.align(splits.to_arrow()), root / "metadata" / "subject_splits.parquet")
    return root
