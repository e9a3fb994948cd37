"""A reply whose parts come a moment later is taken up at once, and not a second later."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError
from flwr.superlink.grid import http_grid

from server.short_waits import FIRST_WAIT_S, PULL, shorten_waits


def test_the_first_wait_for_a_part_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    asked: list[str] = []

    class Recorded(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    def part(name: str) -> bytes:
        asked.append(name)
        if len(asked) < 3:
            raise ObjectUnavailableError(name)
        return b"there"

    monkeypatch.setattr(http_grid, PULL, vars(http_grid)[PULL])  # put back afterwards
    monkeypatch.setattr(inflatable_utils, "threading", SimpleNamespace(Event=Recorded, Lock=threading.Lock))
    shorten_waits()
    shorten_waits()  # once is enough
    assert vars(http_grid)[PULL](["part"], part) == {"part": b"there"}
    assert waits == [pytest.approx(FIRST_WAIT_S, rel=0.21), pytest.approx(2 * FIRST_WAIT_S, rel=0.21)]
