"""What every algorithm of the registry must keep, whatever it does: tested on all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.registry import ALGORITHMS
from tests.strategies.halves import Halves, Hospital

pytestmark = pytest.mark.usefixtures("flower_task")

SETTINGS: dict[str, dict[str, Any]] = {
    "fairfed": {"group": "GENDER//F"},
    # Rounds here have five hospitals, or three of them.
    "bulyan": {"faulty": 0},
    "krum": {"faulty": 0},
    "multikrum": {"faulty": 0},
}
"""Where an algorithm cannot do without: its settings here."""


def hospitals() -> list[Hospital]:
    return [
        Hospital("a", [1.0, 2.0, -1.0], [1.0, 0.5, 2.0], stays=30, steps=5),
        Hospital("b", [-1.0, 0.0, 3.0], [0.5, 1.0, 1.0], stays=10, steps=3),
        Hospital("c", [0.5, -2.0, 0.0], 1.5, stays=20, steps=4),
        Hospital("d", [0.0, 1.0, 1.0], 1.0, stays=20, steps=4),
        Hospital("e", [2.0, 1.0, 0.5], 0.8, stays=15, steps=2),
    ]


def study(name: str) -> Halves:
    return Halves({"name": name, **SETTINGS.get(name, {})}, hospitals())


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_state_survives_a_restart(name: str, tmp_path: Path) -> None:
    """Stopped after every round and gone on from files, a study ends with the same bits."""
    through = study(name).run(6)
    stopped = study(name)
    for _ in range(6):
        stopped.run(1).restart(tmp_path)
    assert stopped.point.tobytes() == through.point.tobytes()
    for one, other in zip(through.hospitals, stopped.hospitals, strict=True):
        assert one.memory.keys() == other.memory.keys()
        assert all(bool((one.memory[key] == other.memory[key]).all()) for key in one.memory)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_the_same_study_gives_the_same_bits(name: str) -> None:
    assert study(name).run(4).point.tobytes() == study(name).run(4).point.tobytes()


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_weights_keep_names_shapes_and_dtypes(name: str) -> None:
    made = study(name)
    made.weights = {"w": made.point.astype(np.float64)}
    before = {key: (array.shape, array.dtype) for key, array in made.weights.items()}
    made.run(2)
    assert {key: (array.shape, array.dtype) for key, array in made.weights.items()} == before


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_what_travels_beside_the_weights_is_what_was_announced(name: str) -> None:
    """The server quarantines a reply whose arrays or facts it does not expect: honest ones must fit."""
    made = study(name).run(2)
    expected = made.algorithm.beside_expected(made.weights)
    for update in made.updates:
        assert {key: (x.shape, x.dtype) for key, x in update.beside.items()} == {
            key: (x.shape, x.dtype) for key, x in expected.items()
        }
        assert set(update.facts) <= made.algorithm.facts_expected()
        assert set(update.facts) >= made.algorithm.facts_needed()


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_site_that_misses_rounds_does_no_harm(name: str) -> None:
    """Partial participation: the shared weights stay finite and near the hospitals' optima."""
    made = study(name).run(30, taking_part=lambda number: [number % 5, (number + 1) % 5, (number + 2) % 5])
    assert np.isfinite(made.point).all()
    assert np.abs(made.point).max() < 5
