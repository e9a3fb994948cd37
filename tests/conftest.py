"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def physionet2012_raw() -> Path:
    """Folder of the real challenge files: sets b and c with their outcomes.

    Found through HYMATE_PHYSIONET2012; without it a test is skipped, unless
    HYMATE_REQUIRE_REAL_DATA=1 says that the data has to be there.
    """
    given = os.environ.get("HYMATE_PHYSIONET2012", "")
    if given and Path(given).is_dir():
        return Path(given)
    what = f"{given} is no folder" if given else "HYMATE_PHYSIONET2012 is not set"
    if os.environ.get("HYMATE_REQUIRE_REAL_DATA") == "1":
        pytest.fail(f"real PhysioNet 2012 data is required, but {what}")
    pytest.skip(f"real PhysioNet 2012 data: {what}")
