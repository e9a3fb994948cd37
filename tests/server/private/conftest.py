"""Two hospitals, and a study with noise that several questions are asked of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.private.asking import NOISE, ROUNDS
from tests.server.studies import Study


@pytest.fixture(scope="session")
def hospitals(small_hospitals: Callable[[int], Path]) -> Path:
    return small_hospitals(2)


@pytest.fixture(scope="session")
def done(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """All that a site remembers shapes this study's rounds: moments, own layers, c_i, the adaptive norm."""
    made = Study(hospitals, tmp_path_factory.mktemp("done") / "run")
    made.run(
        rounds=ROUNDS,
        privacy={**NOISE, "clipping": "adaptive"},
        strategy={"name": "scaffold", "local_layers": ["head"]},
    )
    return made
