"""Predictions as MEDS-evaluation reads them: one parquet row a stay.

| column                        | type          | meaning                                              |
|-------------------------------|---------------|------------------------------------------------------|
| subject_id                    | int64         |                                                      |
| prediction_time               | timestamp[us] | last instant whose data the model saw                |
| boolean_value                 | bool          | the label; only in a file whose every label is known |
| predicted_boolean_value       | bool          | probability >= threshold                             |
| predicted_boolean_probability | float32       |                                                      |

The schema is `PredictionSchema` of https://github.com/kamilest/meds-evaluation (0.0.6).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from hymate.durable import write_bytes
from hymate.errors import InputFault

KEYS = ("subject_id", "prediction_time")
LABEL = "boolean_value"
PROBABILITY = "predicted_boolean_probability"
DECISION = "predicted_boolean_value"
SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("prediction_time", pa.timestamp("us"), nullable=False),
        pa.field(LABEL, pa.bool_()),
        pa.field(DECISION, pa.bool_()),
        pa.field(PROBABILITY, pa.float32()),
    ]
)


def binary_predictions(
    subject: npt.NDArray[np.int64],
    time: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float64],
    label: npt.NDArray[np.floating],
    threshold: float,
) -> pl.DataFrame:
    """One row a stay, by subject and time.

    Args:
        time: microseconds since 1970.
        label: 0, 1, or NaN where it is not known; the column is left out unless all are.
        threshold: probability from which `predicted_boolean_value` is true.
    """
    table = pl.DataFrame(
        {
            "subject_id": subject,
            "prediction_time": pl.Series(time).cast(pl.Datetime("us")),
            LABEL: label > 0.5,
            DECISION: probability >= threshold,
            PROBABILITY: probability.astype(np.float32),
        }
    )
    if np.isnan(label).any():
        table = table.drop(LABEL)
    return table.sort(*KEYS)


def write_predictions(path: Path, table: pl.DataFrame) -> None:
    """Write parquet in one step. Raises `InputFault` where `path` cannot be written."""
    # Types as MEDS wants them, not polars' own.
    fields = [SCHEMA.field(name) if name in SCHEMA.names else None for name in table.columns]
    arrow = table.to_arrow()
    arrow = arrow.cast(
        pa.schema(
            [field or own for field, own in zip(fields, arrow.schema, strict=True)]  # regression's columns
        )
    )
    content = io.BytesIO()
    pq.write_table(arrow, content)
    try:
        write_bytes(path, content.getvalue())
    except OSError as fault:
        raise InputFault(
            path, f"cannot be written ({fault.strerror})", "give a file in a folder you may write to"
        ) from None


def read_table(path: Path, wanted: dict[str, pa.DataType], what: str) -> pl.DataFrame:
    """The columns of `wanted` that the file has; `subject_id` and `prediction_time` are demanded.

    Parquet or CSV, by the name's ending. Raises `InputFault` for a file that is missing, no table, or
    has a column of another type; `what` says what it should be.
    """
    if not path.is_file():
        raise InputFault(path, "no such file", "check the path given")
    try:
        if path.suffix == ".csv":
            table = pl.read_csv(path, try_parse_dates=True)
        else:
            table = pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as fault:
        raise InputFault(path, f"cannot be read ({str(fault).splitlines()[0]})", f"give {what}") from None
    missing = [name for name in KEYS if name not in table.columns]
    if missing:
        raise InputFault(path, f"column '{missing[0]}' is missing", f"give {what}")
    present = [name for name in wanted if name in table.columns]
    try:
        return table.select(pl.col(name).cast(_POLARS[wanted[name]]) for name in present)
    except pl.exceptions.PolarsError as fault:
        raise InputFault(
            path, f"has a column of another type ({str(fault).splitlines()[0]})", f"give {what}"
        ) from None


_POLARS: dict[pa.DataType, Any] = {
    pa.int64(): pl.Int64(),
    pa.timestamp("us"): pl.Datetime("us"),
    pa.bool_(): pl.Boolean(),
    pa.float32(): pl.Float64(),
}
