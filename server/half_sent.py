"""A reply that a site was killed in the middle of sending is given up when the site is back.

Flower waits three minutes for the parts of a reply that are missing, and the process of the study waits
with it: no other site's reply is taken in meanwhile. Once the site has joined anew, nobody will send
them any more.
"""

from __future__ import annotations

from typing import Any


def give_up_on_return() -> None:
    """From here on SuperLinks of this process forget half-sent replies of a node that joins anew."""
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState

    store, activate = SqlLinkState.store_message_and_object_tree, SqlLinkState.activate_node
    sending: dict[int, str] = {}
    """Node -> the session in which it last pushed the parts of a reply; it sends one at a time."""

    def storing(state: Any, message: Any, object_tree: Any, session_id: str) -> tuple[bool, list[str]]:
        sending[message.metadata.src_node_id] = session_id
        return store(state, message, object_tree, session_id)

    def activating(state: Any, node_id: int, heartbeat_interval: float) -> bool:
        joined = activate(state, node_id, heartbeat_interval)
        if joined and (session_id := sending.pop(node_id, None)) is not None:
            _end(state, session_id)
        return joined

    SqlLinkState.store_message_and_object_tree = storing  # type: ignore[method-assign, assignment]
    SqlLinkState.activate_node = activating  # type: ignore[method-assign, assignment]


def _end(state: Any, session_id: str) -> None:
    """End a session: who asks for a part that is missing in it is told that there is none."""
    from flwr.supercore.date import now
    from flwr.supercore.state.schema.corestate_models import ObjectPushSession
    from sqlalchemy import update

    ended = update(ObjectPushSession).where(ObjectPushSession.session_id == session_id)
    with state.session() as session:
        session.execute(ended.values(expires_at=now()).execution_options(synchronize_session=False))
