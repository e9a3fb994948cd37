"""What every configuration is made of: an immutable base, and numbers with bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]

LabelSet = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,99}$")]
"""A folder's name: a site makes folders after it, so it may not lead out of one."""


class Frozen(BaseModel):
    """Base of every configuration: immutable, no unknown keys, fields described for `--help` and docs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
