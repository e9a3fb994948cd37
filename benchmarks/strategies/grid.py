"""A federation inside one process: the real ClientApp of every site behind a grid that carries messages.

Everything but the transport is the product's own code, so a run comes to what `hymate-simulate` comes
to, without Ray: many runs side by side, each on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Message

from benchmarks.sites import Sites, delivered
from benchmarks.strategies.processor_time import ProcessorTime
from server.exchange import Clock

Tamper = Callable[[str, Message, Message], Message]
"""Site, request and honest reply -> what arrives."""


def virtual_time() -> Clock:
    """A clock on which time passes only when somebody waits."""
    passed = [0.0]

    def sleep(seconds: float) -> None:
        passed[0] += max(seconds, 1e-3)

    return Clock(now=lambda: passed[0], sleep=sleep)


class LocalGrid:
    """The part of Flower's Grid that the round loop uses. Sites answer one after another, when asked for."""

    def __init__(self, run: Path, sites: list[str], tamper: Tamper | None = None) -> None:
        self._tamper = tamper
        self._processor = ProcessorTime(run)
        self._sites = Sites(run, sites)
        self._waiting: dict[str, Message] = {}
        self._sent = 0

    def get_node_ids(self) -> list[int]:
        return list(self._sites.names)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        taken = []
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = f"message-{self._sent:06d}"
            self._waiting[message.metadata.message_id] = message
            taken.append(message.metadata.message_id)
        return taken

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [
            self._answer(self._waiting.pop(message_id))
            for message_id in sorted(message_ids)
            if message_id in self._waiting
        ]

    def _answer(self, request: Message) -> Message:
        with self._processor.spent_on(request.metadata.message_type):
            reply = self._sites.answer(request)
        if self._tamper:
            reply = self._tamper(self._sites.names[request.metadata.dst_node_id], request, reply)
        return delivered(reply, request)
