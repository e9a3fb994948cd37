"""Predictions as MEDS-evaluation reads them: one parquet row a stay.

| column                        | type          | meaning                                              |
|-------------------------------|---------------|------------------------------------------------------|
| subject_id                    | int64         |                                                      |
| prediction_time               | timestamp[us] | last instant whose data the model saw                |
| boolean_value                 | bool          | the label; only in a file whose every label is known |
| predicted_boolean_value       | bool          | probability >= threshold                             |
| predicted_boolean_probability | float32       |                                                      |

Of a number: `float_value` and `predicted_float_value` (float32) instead, which MEDS-evaluation does not know.

The schema is `PredictionSchema` of https://github.com/kamilest/meds-evaluation (0.0.6).
"""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from hymate.durable import write_bytes
from hymate.errors import InputFault

KEYS = ("subject_id", "prediction_time")
LABEL = "boolean_value"
DECISION = "predicted_boolean_value"
PROBABILITY = "predicted_boolean_probability"
NUMBER = "float_value"
PREDICTED_NUMBER = "predicted_float_value"

_TYPES: dict[str, tuple[pl.DataType, pa.DataType]] = {
    "subject_id": (pl.Int64(), pa.int64()),
    "prediction_time": (pl.Datetime("us"), pa.timestamp("us")),
    LABEL: (pl.Boolean(), pa.bool_()),
    DECISION: (pl.Boolean(), pa.bool_()),
    PROBABILITY: (pl.Float32(), pa.float32()),
    NUMBER: (pl.Float32(), pa.float32()),
    PREDICTED_NUMBER: (pl.Float32(), pa.float32()),
}


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


def number_predictions(
    subject: npt.NDArray[np.int64],
    time: npt.NDArray[np.int64],
    number: npt.NDArray[np.float64],
    label: npt.NDArray[np.floating],
) -> pl.DataFrame:
    """As `binary_predictions`, of numbers in the label's unit."""
    table = pl.DataFrame(
        {
            "subject_id": subject,
            "prediction_time": pl.Series(time).cast(pl.Datetime("us")),
            NUMBER: label.astype(np.float32),
            PREDICTED_NUMBER: number.astype(np.float32),
        }
    )
    if np.isnan(label).any():
        table = table.drop(NUMBER)
    return table.sort(*KEYS)


def write_predictions(path: Path, table: pl.DataFrame) -> None:
    """Write parquet in one step; `InputFault` where `path` cannot be written."""
    arrow = table.to_arrow()
    content = io.BytesIO()
    pq.write_table(arrow.cast(pa.schema([(name, _TYPES[name][1]) for name in arrow.column_names])), content)
    try:
        write_bytes(path, content.getvalue())
    except OSError as fault:
        raise InputFault(
            path, f"cannot be written ({fault.strerror})", "give a file in a folder you may write to"
        ) from None


def read_table(path: Path, wanted: Collection[str], what: str) -> pl.DataFrame:
    """Those columns of `wanted` that the file has; `KEYS` are demanded.

    Parquet, or CSV by the name's ending. `what` says what the file should be. Raises `InputFault` for
    a file that is missing, no table, or has a column of another type.
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
    columns = [name for name in wanted if name in table.columns]
    try:
        return table.select(pl.col(name).cast(_TYPES[name][0]) for name in columns)
    except pl.exceptions.PolarsError as fault:
        reason = str(fault).splitlines()[0]
        raise InputFault(path, f"has a column of another type ({reason})", f"give {what}") from None
