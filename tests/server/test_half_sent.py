"""A reply that was cut off while it was sent: gone once its site is back, and not a moment before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.server.superlink.linkstate.linkstate_factory import LinkStateFactory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager

from server.half_sent import give_up_on_return


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("activate_node", "store_message_and_object_tree"):
        monkeypatch.setattr(SqlLinkState, name, getattr(SqlLinkState, name))  # put back afterwards
    give_up_on_return()
    database = str(tmp_path / "state.db")
    return LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database)).state()


def numbered(message: Message) -> Message:
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


class Site:
    """A node of one run that was asked something, and has begun to answer."""

    def __init__(self, state: Any, run: int, key: bytes) -> None:
        self._state, self._run = state, run
        self.node = state.create_node("flwr", "flwr", key, 30)
        assert state.activate_node(self.node, 30)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, SUPERLINK_NODE_ID, 1
        asked = numbered(Message(RecordDict(), dst_node_id=self.node, message_type="train.pretrain"))
        assert state.store_message_ins(asked)
        TaskIdentity.node_id = self.node
        weights = [np.full(size, int(key), np.float32) for size in (4, 3)]
        self.reply = numbered(Message(RecordDict({"weights": ArrayRecord(weights)}), reply_to=asked))
        self._session = state.start_session(run)
        stored, self.missing = state.store_message_and_object_tree(
            self.reply, get_object_tree(self.reply), self._session
        )
        assert stored
        assert len(self.missing) > 3
        # The study's process was told of the reply, and asks for its parts from here on.
        assert len(state.get_message_res({asked.metadata.message_id}, run)) == 1
        state.delete_messages({asked.metadata.message_id})

    def push(self, names: list[str]) -> None:
        parts = get_all_nested_objects(self.reply)
        for name in names:
            assert self._state.store_object(self._run, self._session, name, parts[name].deflate())

    def part(self, name: str) -> bytes | None:
        """What the study's process is told of one part: b"" where it is to wait for it."""
        content = self._state.get_object(self._run, name)
        return None if content is None else bytes(content)


def test_it_is_waited_for_until_the_site_is_back(state: Any) -> None:
    fab = {"fab_id": "a/b", "fab_version": "1", "fab_hash": "x", "override_config": {}}
    run = state.create_run(**fab, federation_id=NOOP_FEDERATION_ID, federation_config=None, flwr_aid="flwr",
                           primary_task_type=TaskType.SERVER_APP)  # fmt: skip
    cut_off, other, whole = (Site(state, run, key) for key in (b"1", b"2", b"3"))
    for site in (cut_off, other):
        site.push(site.missing[:1])
    whole.push(whole.missing)
    waited_for = cut_off.missing[-1]
    assert cut_off.part(waited_for) == b""
    assert state.deactivate_node(cut_off.node)
    assert cut_off.part(waited_for) == b""
    assert state.activate_node(cut_off.node, 30)
    assert cut_off.part(waited_for) is None
    assert other.part(other.missing[-1]) == b""
    assert state.deactivate_node(whole.node)
    assert state.activate_node(whole.node, 30)
    assert all(whole.part(name) for name in whole.missing)
