"""A heartbeat that outlives a coordinator in trouble.

Flower's ends, without a word, at the first answer that is an HTTP error (a coordinator whose disk is full
gives one): the site would go on asking for work, and count as gone for ever.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import httpx
from flwr.supercore.heartbeat import HeartbeatSender


class LastingHeartbeat(HeartbeatSender):
    """Tries again after an HTTP error; where SuperLink does not know the node, the process begins anew."""

    def __init__(self, heartbeat_fn: Callable[[], bool]) -> None:
        def beat() -> bool:
            try:
                return heartbeat_fn()
            except httpx.HTTPStatusError:
                return False
            except RuntimeError:
                os.kill(os.getpid(), signal.SIGINT)
                return True

        super().__init__(beat)
