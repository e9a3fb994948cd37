"""What a site that ended without a goodbye owes the coordinator: to leave, and an answer.

A SuperNode that is killed leaves two things behind. SuperLink takes it for connected for up to a minute
more, and does not let it in meanwhile; and it waits for the reply to a message that nobody works on any
more, until the round's deadline. Both stand in one small file from the moment they are owed until they
are paid, so that the next SuperNode can pay at once.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse, DeactivateNodeRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_client import FleetHttpClient

from hymate.durable import write_text

STARTED_ANEW = "the site was started anew while it worked on this"
NOT_TAKEN = "the site could not take in all of what was sent"

Send = Callable[[Message, Any, float], tuple[set[str], str]]
Push = Callable[[int, str, str, bytes], None]


class Unfinished:
    """The file; a disk that is full is said in the log and stops nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._node: int | None = None
        self._message = ""
        self.awaited = ""
        """Id of the message that is worked on; empty from when its reply begins to be sent."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            node, message = content["node"], str(content["message"])
            self._node, self._message = None if node is None else int(node), message
        except (OSError, ValueError, KeyError, TypeError):
            return

    @property
    def node(self) -> int | None:
        """The node id under which the site was last connected, and may still be as SuperLink sees it."""
        return self._node

    @property
    def message(self) -> Message | None:
        """The message that still waits for an answer, without its content."""
        if not self._message:
            return None
        try:
            return message_from_proto(MessageProto.FromString(b64decode(self._message)))
        except Exception:  # of an earlier release, or damaged: an answer less, no more
            return None

    def joined(self, node: int) -> None:
        self._node = node
        self._write()

    def took(self, message: Message) -> None:
        """A message came: an answer is owed."""
        self.awaited = message.metadata.message_id
        self._message = b64encode(message_to_proto(message).SerializeToString()).decode("ascii")
        self._write()

    def answered(self) -> None:
        if self._message:
            self._message = ""
            self._write()

    def _write(self) -> None:
        try:
            write_text(self._path, json.dumps({"node": self._node, "message": self._message}))
        except OSError as fault:
            logging.getLogger("hymate").warning("%s not written (%s)", self._path.name, fault.strerror)


def leaving_first(client: type[FleetHttpClient], unfinished: Unfinished) -> type[FleetHttpClient]:
    """Flower's client, which leaves before it joins: the last SuperNode may have had no time to."""

    class Client(client):  # type: ignore[misc, valid-type]
        def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:
            node = unfinished.node
            if node is not None:
                with suppress(httpx.HTTPStatusError):  # it has left already, or has another id now
                    self.DeactivateNode(DeactivateNodeRequest(node_id=node))
            return super().ActivateNode(request)  # type: ignore[no-any-return]

    return Client


def settle(unfinished: Unfinished, send: Send, push: Push, reason: str) -> None:
    """Answer the message that is still owed an answer, if there is one, with an error."""
    message = unfinished.message
    if message is not None:
        try:
            reply = Message(Error(ErrorCode.CLIENT_APP_CRASHED, reason), reply_to=message)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            missing, session = send(reply, get_object_tree(reply), 0.0)
            parts = get_all_nested_objects(reply)
            for name in missing:
                push(message.metadata.run_id, session, name, parts[name].deflate())
        except (Exception, RunNotRunningException) as fault:  # nobody waits for it any more
            logging.getLogger("hymate").info("a message is left unanswered: %s", fault)
    unfinished.answered()


def answering(unfinished: Unfinished, send: Send) -> Send:
    """`send` that settles what is owed: from here on SuperLink knows whether a reply is whole."""

    def sending(message: Message, tree: Any, seconds: float) -> tuple[set[str], str]:
        if message.metadata.reply_to_message_id != unfinished.awaited:  # of a study that has ended
            return send(message, tree, seconds)
        unfinished.awaited = ""
        told = send(message, tree, seconds)
        unfinished.answered()
        return told

    return sending


def until_awaited(unfinished: Unfinished, push: Callable[..., None]) -> Callable[..., None]:
    """Flower's `push`, which sends the replies that are there, repeated until the awaited one was.

    Where a study ends while its message comes in, Flower forgets the message and works on it all the
    same. That reply would be taken for the reply to the next study's first message, and so on for ever.
    """

    def pushing(*given: Any, **named: Any) -> None:
        push(*given, **named)
        while unfinished.awaited:
            push(*given, **named)

    return pushing
