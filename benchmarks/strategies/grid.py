"""A federation inside one process: the real ClientApp of every site behind a grid that carries messages.

Everything but the transport is the product's own code, so a run comes to what `hymate-simulate` comes
to, without Ray: many runs side by side, each on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.strategies.processor_time import ProcessorTime
from client.app import app as client_app
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
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
        self._tamper = tamper
        self._processor = ProcessorTime(run)
        self._sites = {10 + index: name for index, name in enumerate(sites)}
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"site": str(run / "sites" / name / "site.yaml")},
                state=RecordDict(),
                run_config={},
            )
            for node, name in self._sites.items()
        }
        self._waiting: dict[str, Message] = {}
        self._sent = 0

    def get_node_ids(self) -> list[int]:
        return list(self._sites)

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
        node = request.metadata.dst_node_id
        try:
            with self._processor.spent_on(request.metadata.message_type):
                reply = client_app(request, self._contexts[node])
        except Exception as crash:  # what Flower's engine does with a crash
            reply = Message(Error(code=2, reason=str(crash)), reply_to=request)
        if self._tamper:
            reply = self._tamper(self._sites[node], request, reply)
        reply.metadata.__dict__["_src_node_id"] = node
        reply.metadata.__dict__["_reply_to_message_id"] = request.metadata.message_id
        return reply
