"""Two hospitals, and a study with noise that several questions are asked of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.in_process import lay_out
from tests.server.private.asking import NOISE, ROUNDS
from tests.server.studies import Study


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals") / "run"
    lay_out(folder, 2, stays=40)
    return folder


@pytest.fixture
def study(hospitals: Path, tmp_path: Path) -> Study:
    return Study(hospitals, tmp_path / "run")


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
