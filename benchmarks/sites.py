"""The sites of a run in this process: the real ClientApp of each, without any transport."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app as client_app

FIRST_NODE = 10


class Sites:
    """Node ids are 10, 11, ... in the order of `names`, each a folder of `run`/sites."""

    def __init__(self, run: Path, names: Sequence[str]) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
        self.names = {FIRST_NODE + index: name for index, name in enumerate(names)}
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"site": str(run / "sites" / name / "site.yaml")},
                state=RecordDict(),
                run_config={},
            )
            for node, name in self.names.items()
        }

    def answer(self, request: Message) -> Message:
        """What the site says that the request is for."""
        try:
            return client_app(request, self._contexts[request.metadata.dst_node_id])
        except Exception as crash:  # what Flower's engine does with a crash
            return Message(Error(code=2, reason=str(crash)), reply_to=request)


def delivered(reply: Message, request: Message) -> Message:
    """The reply as it arrives: Flower says whose it is, and to what."""
    reply.metadata.__dict__["_src_node_id"] = request.metadata.dst_node_id
    reply.metadata.__dict__["_reply_to_message_id"] = request.metadata.message_id
    return reply
