"""Patience counts scores without improvement, and an unknown score never ends training."""

from __future__ import annotations

import pytest

from hymate.train.early_stopping import EarlyStopping


@pytest.mark.parametrize(
    ("scores", "kept", "rounds"),
    [
        ((0.1, 0.3, 0.2, 0.3, 0.2, 0.9), (True, True, False, False, False), 5),  # a tie is no progress
        ((0.5, 0.4, 0.6, 0.5, 0.5, 0.5), (True, False, True, False, False, False), 6),
        ((-2.0, -1.0), (True, True), 2),
        ((None,) * 9, (True,) * 9, 9),
    ],
)
def test_rounds_until_patience_three_ends(
    scores: tuple[float | None, ...], kept: tuple[bool, ...], rounds: int
) -> None:
    stopping, found = EarlyStopping(patience=3), []
    for score in scores:
        if stopping.exhausted:
            break
        found.append(stopping.update(score))
    assert tuple(found) == kept
    assert len(found) == rounds
