"""Fixtures of the fault suite (`make test-faults`): one cohort, one undisturbed run, federations to break."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hymate.data.synthetic import generate_cohort, write_cohort
from tests.faults.federation import Federation, processes

Build = Callable[..., Federation]


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MEDS data sets of two small hospitals."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(generate_cohort(2, 60, seed=0), folder)
    return folder


@pytest.fixture
def federation(tmp_path: Path, cohort: Path) -> Iterator[Build]:
    """Makes a federation in this test's folder; afterwards nothing of it may run."""
    made: list[Federation] = []

    def build(**changes: Any) -> Federation:
        made.append(Federation(tmp_path, data=cohort, **changes))
        return made[-1]

    yield build
    for one in made:
        one.end()
    deadline = time.monotonic() + 20
    while left := [process.cmdline()[:4] for process in processes(tmp_path)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.5)


@pytest.fixture(scope="session")
def undisturbed(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What comes out of the study when nothing goes wrong."""
    one = Federation(tmp_path_factory.mktemp("undisturbed"), data=cohort)
    try:
        one.start_clients()
        assert one.finish(one.start_server()) == 0, one.told()
        return one.weights()
    finally:
        one.end()
