"""A bad update is recognised, and the reason names the array."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.screening import fault_of

REFERENCE = {"w": np.zeros((2, 2), dtype=np.float32), "b": np.zeros(2, dtype=np.float32)}


def test_a_good_update_passes() -> None:
    assert fault_of({name: array + 1 for name, array in REFERENCE.items()}, REFERENCE, 10) is None


@pytest.mark.parametrize(
    ("update", "weight", "words"),
    [
        ({"w": REFERENCE["w"]}, 1, "missing or unknown, first: b"),
        ({**REFERENCE, "extra": REFERENCE["b"]}, 1, "first: extra"),
        ({**REFERENCE, "b": np.zeros(3, dtype=np.float32)}, 1, "b is float32[3], expected float32[2]"),
        ({**REFERENCE, "b": np.zeros(2)}, 1, "b is float64[2]"),
        (
            {**REFERENCE, "b": np.array([0, np.nan], dtype=np.float32)},
            1,
            "b holds values that are not finite",
        ),
        ({**REFERENCE, "b": np.array([0, np.inf], dtype=np.float32)}, 1, "not finite"),
        (REFERENCE, 0, "weight 0 is not a positive number"),
        (REFERENCE, float("nan"), "weight nan"),
    ],
)
def test_faults_are_named(update: dict[str, np.ndarray], weight: float, words: str) -> None:
    fault = fault_of(update, REFERENCE, weight)
    assert fault is not None
    assert words in fault
