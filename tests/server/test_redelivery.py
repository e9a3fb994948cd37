"""A message that went down with its site is given to it again, once, and only where no answer is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.server.superlink.linkstate.linkstate_factory import LinkStateFactory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager

from server.redelivery import give_again_on_return
from tests.server.test_half_sent import numbered


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("activate_node", "get_message_ins"):
        monkeypatch.setattr(SqlLinkState, name, getattr(SqlLinkState, name))  # put back afterwards
    give_again_on_return()
    database = str(tmp_path / "state.db")
    return LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database)).state()


def taken(state: Any, node: int) -> list[str]:
    return [message.metadata.message_id for message in state.get_message_ins(node, None)]


def comes_back(state: Any, node: int) -> None:
    state.deactivate_node(node)
    assert state.activate_node(node, 30)


def test_what_was_lost_is_given_again_and_what_was_answered_is_not(state: Any) -> None:
    fab = {"fab_id": "a/b", "fab_version": "1", "fab_hash": "x", "override_config": {}}
    run = state.create_run(**fab, federation_id=NOOP_FEDERATION_ID, federation_config=None, flwr_aid="flwr",
                           primary_task_type=TaskType.SERVER_APP)  # fmt: skip
    lost, other = (state.create_node("flwr", "flwr", key, 30) for key in (b"1", b"2"))
    asked: dict[int, Message] = {}
    for node in (lost, other):
        assert state.activate_node(node, 30)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, SUPERLINK_NODE_ID, 1
        asked[node] = numbered(Message(RecordDict(), dst_node_id=node, message_type="train.pretrain"))
        assert state.store_message_ins(asked[node])
    first = asked[lost].metadata.message_id
    assert taken(state, lost) == [first]
    assert taken(state, lost) == [], "it stayed"
    assert taken(state, other) == [asked[other].metadata.message_id]

    comes_back(state, lost)
    assert taken(state, lost) == [first]
    assert taken(state, lost) == [], "given again once"
    assert taken(state, other) == [], "who was not away is given nothing again"

    comes_back(state, lost)
    TaskIdentity.node_id = lost
    reply = numbered(Message(Error(0, "the site was started anew"), reply_to=asked[lost]))
    assert state.store_message_res(reply)
    assert taken(state, lost) == [], "it said itself that it gave up"
