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

    activate = SqlLinkState.activate_node

    def activating(state: Any, node_id: int, heartbeat_interval: float) -> bool:
        joined = activate(state, node_id, heartbeat_interval)
        if joined:
            _end_sessions(state, node_id)
        return joined

    SqlLinkState.activate_node = activating  # type: ignore[method-assign, assignment]


def _end_sessions(state: Any, node_id: int) -> None:
    """End the sessions in which the node was pushing parts: what asks for one is told that it is gone."""
    from flwr.supercore.date import now
    from flwr.supercore.state.schema.corestate_models import ObjectPushSession, ObjectPushSessionRoot
    from flwr.supercore.state.schema.linkstate_models import MessageRes
    from flwr.supercore.utils import uint64_to_int64
    from sqlalchemy import select, update

    replies = select(MessageRes.message_id).where(MessageRes.src_node_id == uint64_to_int64(node_id))
    sessions = select(ObjectPushSessionRoot.session_id).where(
        ObjectPushSessionRoot.root_object_id.in_(replies)
    )
    with state.session() as session:
        session.execute(
            update(ObjectPushSession)
            .where(ObjectPushSession.session_id.in_(sessions))
            .values(expires_at=now())
            .execution_options(synchronize_session=False)
        )
