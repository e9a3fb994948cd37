"""What stands beside a run of an experiment, so that it is not run again and can be repeated."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any, Literal

State = Literal["new", "begun", "finished"]


def commit_now() -> str:
    """Of the working tree, with a + where it differs from its commit; "unknown" outside of git."""
    here = Path(__file__).parent
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        check=False,
        capture_output=True,
        text=True,
        cwd=here,
    )
    return told.stdout.strip() or "unknown"


def commits_in(record: Path) -> list[str]:
    """Under which a run was run, in order; none where it has no record yet."""
    try:
        return list(json.loads(record.read_text(encoding="utf-8"))["commits"])
    except (OSError, ValueError, KeyError):
        return []


def digest(content: Any) -> str:
    """Names a run by all that it depends on."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
