"""The vocabulary as a MEDS code table, in the column names of the MEDS ecosystem."""

from __future__ import annotations

import io
from pathlib import Path

from hymate.data.vocabulary import Vocabulary
from hymate.durable import write_bytes


def write_codes_table(path: Path, vocabulary: Vocabulary) -> None:
    """Write `path` (Parquet), a row a code with a time, as `metadata/codes.parquet` of MEDS.

    Columns `code`, `description`, `parent_codes` (null), `unit`, `code/vocab_index` int64 (1..),
    `values/mean` and `values/std` float64 (null for a code that never carries a number). Static codes
    have no index of this kind and are left out. The file appears whole or not at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from meds.schema import CodeMetadataSchema

    entries = vocabulary.codes
    table = pa.table(
        {
            "code": pa.array([entry.code for entry in entries], pa.string()),
            "description": pa.nulls(len(entries), pa.string()),
            "parent_codes": pa.nulls(len(entries), pa.list_(pa.string())),
            "unit": pa.array([entry.unit or None for entry in entries], pa.string()),
            "code/vocab_index": pa.array(range(1, len(entries) + 1), pa.int64()),
            "values/mean": pa.array(
                [entry.mean if entry.numeric else None for entry in entries], pa.float64()
            ),
            "values/std": pa.array([entry.std if entry.numeric else None for entry in entries], pa.float64()),
        }
    )
    content = io.BytesIO()
    pq.write_table(CodeMetadataSchema.align(table), content)
    write_bytes(path, content.getvalue())
