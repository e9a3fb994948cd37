"""Small hospitals, and a study that may do with them what it likes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.in_process import lay_out
from tests.server.studies import Study


@pytest.fixture(scope="session")
def small_hospitals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """So many of 40 stays each, as `lay_out` made them: laid out once for all studies that move in."""

    @cache
    def laid_out(number: int) -> Path:
        folder = tmp_path_factory.mktemp("hospitals") / "run"
        lay_out(folder, number, stays=40)
        return folder

    return laid_out


@pytest.fixture
def study(hospitals: Path, tmp_path: Path) -> Study:
    """One of the test's own, over its module's `hospitals`."""
    return Study(hospitals, tmp_path / "run")
