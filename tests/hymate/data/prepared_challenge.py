"""Sites out of the Challenge's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hymate.data.physionet2012 import prepare_physionet2012


def prepare(raw: Path, out: Path, **options: Any) -> dict[str, Any]:
    return prepare_physionet2012(raw, out, **{"site_by": "none", **options})
