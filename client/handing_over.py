"""Notices that the process which worked on a message died while it handed its answer to the SuperNode.

Flower's SuperNode then waits for the rest of the answer for ever, and takes no other message. The rest
comes over loopback: where nothing has come for a minute, nothing will.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0


class HandingOver:
    """Calls `broken_off` where a part is waited for too long; what sending takes does not count."""

    def __init__(self, broken_off: Callable[[], None], patience_s: float = PATIENCE_S) -> None:
        self._broken_off = broken_off
        self._patience_s = patience_s
        self._timer: threading.Timer | None = None

    def waits(self) -> None:
        """From now on the SuperNode waits for a part."""
        self.over()
        self._timer = threading.Timer(self._patience_s, self._broken_off)
        self._timer.daemon = True
        self._timer.start()

    def over(self) -> None:
        """It has come, or all of them have."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, which sends something and after which the next part is waited for."""

        def calling(*given: Any) -> Any:
            self.over()
            told = call(*given)
            self.waits()
            return told

        return calling
