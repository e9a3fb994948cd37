"""Where a MEDS data set keeps its files; the names are those of `meds.schema`, whose import takes a while."""

from __future__ import annotations

from pathlib import Path

DATA = "data"
METADATA = "metadata"
LABELS = "labels"
"""Folder of the label sets, one folder a task."""


def parquet_files(folder: Path) -> list[Path]:
    """Every parquet file below `folder`, sorted; names that begin with "." or "_" are no data."""
    return sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith((".", "_")))
