"""Columns and types, as the `meds` package declares them; metadata/dataset.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flexible_schema.exceptions import (  # type: ignore[import-untyped]
    SchemaValidationError,
    TableValidationError,
)
from meds.schema import DatasetMetadataSchema, dataset_metadata_filepath

from hymate.data.checks import rules
from hymate.data.checks.event_files import ParquetFile
from hymate.data.checks.findings import Example, Findings
from hymate.data.meds_files import first_line, same_kind


def check_columns(file: ParquetFile, meds_schema: Any, findings: Findings, needed: tuple[str, ...]) -> bool:
    """Compare the file's columns with `meds_schema` (a schema class of `meds`).

    Args:
        needed: the columns that are read here; the others may lack or have another type.

    Returns:
        Whether the file can be read: no needed column is missing or of a kind that is not understood.
        `numeric_value` and other optional columns may be missing.
    """
    try:
        meds_schema.validate(file.schema)
    except SchemaValidationError as fault:
        for name in fault.missing_req_cols or ():
            findings.add(rules.COLUMN_MISSING, file.name, column=name)
        broken = bool(fault.missing_req_cols)
        for name, wanted, found in fault.mistyped_cols or ():
            understood = name not in needed or same_kind(found, wanted)
            rule = rules.COLUMN_ENCODING if understood else rules.COLUMN_TYPE
            findings.add(rule, file.name, column=name, found=found, wanted=wanted)
            broken = broken or not understood
        for name in fault.disallowed_extra_cols or ():
            findings.add(rules.COLUMN_EXTRA, file.name, column=name, schema=meds_schema.__name__)
        return not broken
    return True


def check_dataset_metadata(root: Path, findings: Findings) -> None:
    """metadata/dataset.json may be missing; when it is there it is a JSON object with MEDS' fields."""
    path = root / dataset_metadata_filepath
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        findings.add(rules.METADATA_UNREADABLE, dataset_metadata_filepath)
        return
    try:
        DatasetMetadataSchema.validate(content)
    except TableValidationError as fault:
        # The cause is jsonschema's own sentence; it names the value, the exception itself nothing.
        reason = first_line(fault.__cause__ or fault)
        findings.add(rules.METADATA_FIELDS, dataset_metadata_filepath, examples=[Example(value=reason)])
