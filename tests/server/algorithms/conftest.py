"""Studies that several questions are asked of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.algorithms.runs import STRATEGIES, Ran, carry


@pytest.fixture(scope="session")
def laid_out(small_hospitals: Callable[[int], Path]) -> Path:
    return small_hospitals(3)


@pytest.fixture(scope="session")
def plain(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """FedAvg."""
    return carry(laid_out, tmp_path_factory.mktemp("plain") / "run", {"name": "fedavg"})


@pytest.fixture(scope="session")
def own(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Head and norms stay at the sites."""
    return carry(laid_out, tmp_path_factory.mktemp("own") / "run", STRATEGIES["own"], rounds=3)


@pytest.fixture(scope="session")
def scaffolded(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Fine-tuning under SCAFFOLD, pretraining under FedAvg."""
    return carry(laid_out, tmp_path_factory.mktemp("scaffold") / "run", STRATEGIES["scaffolded"], rounds=3)


@pytest.fixture(scope="session")
def fair(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """FairFed."""
    return carry(laid_out, tmp_path_factory.mktemp("fair") / "run", STRATEGIES["fair"], rounds=3)
