"""Write one MEDS data set (https://github.com/Medical-Event-Data-Standard/meds), all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from meds.schema import (
    CodeMetadataSchema,
    DataSchema,
    LabelSchema,
    SubjectSplitSchema,
    code_metadata_filepath,
    data_subdirectory,
    dataset_metadata_filepath,
    subject_splits_filepath,
)

from hymate.data.meds_files import EVENT_SCHEMA, LABELS, SPLITS
from hymate.data.output import fresh_folder, write_json


def write_dataset(
    root: Path,
    *,
    name: str,
    events: pl.DataFrame,
    splits: pl.DataFrame,
    labels: Mapping[str, pl.DataFrame],
    codes: pl.DataFrame,
) -> None:
    """Write one MEDS data set, all of it or nothing; the same input gives the same bytes.

    Args:
        root: folder to make; must not exist or be empty.
        events: columns of `EVENT_SCHEMA`; rows are sorted here, ties keep their order.
        splits: `subject_id`, `split`; every subject of `events` and `labels` is listed.
        labels: task -> `subject_id`, `prediction_time`, and `boolean_value` or `float_value`.
        codes: `code` and optionally `description`, `unit`, `parent_codes`.

    Raises:
        InputFault: `root` is occupied or cannot be written.
        ValueError: the tables contradict each other (a subject without a split, a code not described).
    """
    _require_listed(events, "subject_id", splits, "events", "splits")
    _require_listed(events, "code", codes, "events", "codes")
    for task, table in labels.items():
        _require_listed(table, "subject_id", splits, f"labels of {task}", "splits")
    if "parent_codes" not in codes.columns:
        codes = codes.with_columns(pl.lit(None, pl.List(pl.String)).alias("parent_codes"))
    if "description" not in codes.columns:
        codes = codes.with_columns(pl.lit(None, pl.String).alias("description"))
    events = events.select(EVENT_SCHEMA.names()).cast(EVENT_SCHEMA)
    events = events.sort("subject_id", "time", nulls_last=False, maintain_order=True)
    with fresh_folder(root) as folder:
        for split in SPLITS:
            members = splits.filter(pl.col("split") == split).select("subject_id")
            _write(
                DataSchema,
                events.join(members, on="subject_id", how="semi", maintain_order="left"),
                folder / data_subdirectory / split / "0.parquet",
            )
            for task, table in labels.items():
                part = table.join(members, on="subject_id", how="semi").sort("subject_id", "prediction_time")
                _write(LabelSchema, part, folder / LABELS / task / f"{split}.parquet")
        _write(SubjectSplitSchema, splits.sort("subject_id"), folder / subject_splits_filepath)
        _write(CodeMetadataSchema, codes.sort("code"), folder / code_metadata_filepath)
        metadata = {
            "dataset_name": name,
            "etl_name": "hymate",
            "etl_version": version("hymate-federated"),
            "meds_version": version("meds"),
        }
        write_json(folder / dataset_metadata_filepath, metadata)


def _write(schema: Any, table: pl.DataFrame, path: Path) -> None:
    if table.is_empty():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Polars hands over large_string, which MEDS' validation refuses: align casts it.
    pq.write_table(schema.align(table.to_arrow()), path)


def _require_listed(table: pl.DataFrame, key: str, register: pl.DataFrame, what: str, where: str) -> None:
    missing = table.join(register, on=key, how="anti")
    if len(missing):
        raise ValueError(f"{key} {missing[key][0]!r} is in {what} but not in {where}")
