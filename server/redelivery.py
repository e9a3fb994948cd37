"""What a site took and was killed before it could write that down is given to it again when it is back.

Flower marks a message as delivered the moment it hands it out. Killed between that moment and the next,
a site knows nothing of it, and the round would wait until its deadline. A message whose reply is
stored, or was given up by the site itself as it came back (`client.unfinished`), is not given again.
"""

from __future__ import annotations

from typing import Any


def give_again_on_return() -> None:
    """From here on SuperLinks of this process offer a node that joins anew what it left unanswered."""
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState

    activate, get = SqlLinkState.activate_node, SqlLinkState.get_message_ins
    returned: set[int] = set()

    def activating(state: Any, node_id: int, heartbeat_interval: float) -> bool:
        joined = activate(state, node_id, heartbeat_interval)
        if joined:
            returned.add(node_id)
        return joined

    def getting(state: Any, node_id: int, limit: int | None, *, run_id: int | None = None) -> list[Any]:
        if node_id in returned:  # only now: before it asks, it answers what it knows it owes
            returned.discard(node_id)
            _offer_again(state, node_id)
        return get(state, node_id, limit, run_id=run_id)

    SqlLinkState.activate_node = activating  # type: ignore[method-assign, assignment]
    SqlLinkState.get_message_ins = getting  # type: ignore[method-assign, assignment]


def _offer_again(state: Any, node_id: int) -> None:
    from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
    from flwr.supercore.utils import uint64_to_int64
    from sqlalchemy import select, update

    reply_to = MessageRes.reply_to_message_id
    answered = select(reply_to).where(reply_to.is_not(None))
    again = update(MessageIns).where(
        MessageIns.dst_node_id == uint64_to_int64(node_id),
        MessageIns.delivered_at != "",
        MessageIns.message_id.not_in(answered),
    )
    with state.session() as session:
        session.execute(again.values(delivered_at="").execution_options(synchronize_session=False))
