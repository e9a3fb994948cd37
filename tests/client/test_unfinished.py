"""What a killed SuperNode owes is paid by the next one, and a heartbeat does not end at an error."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore import heartbeat
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity

from client.heartbeat import LastingHeartbeat
from client.unfinished import STARTED_ANEW, Unfinished, answering, leaving_first, settle, until_awaited


@pytest.fixture
def message() -> Message:
    """As it comes from SuperLink: without content, which is fetched later."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
    made = Message(RecordDict(), dst_node_id=12, message_type="train.pretrain")
    made.metadata.__dict__["_message_id"] = made.object_id
    TaskIdentity.node_id = 12
    return made


class Line:
    """A connection that remembers what was sent on it."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.sent: list[Message] = []
        self.pushed: dict[str, bytes] = {}
        self._fault = fault

    def send(self, reply: Message, tree: Any, seconds: float) -> tuple[set[str], str]:
        if self._fault is not None:
            raise self._fault
        self.sent.append(reply)
        return {tree.object_id}, "session"

    def push(self, run: int, session: str, name: str, content: bytes) -> None:
        assert (run, session) == (7, "session")
        self.pushed[name] = content


def test_a_message_that_was_under_way_is_answered_once(tmp_path: Path, message: Message) -> None:
    before = Unfinished(tmp_path / "unfinished.json")
    before.joined(12)
    before.took(message)
    after = Unfinished(tmp_path / "unfinished.json")  # the one before was killed
    assert after.node == 12
    line = Line()
    settle(after, line.send, line.push, STARTED_ANEW)
    (reply,) = line.sent
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert reply.metadata.dst_node_id == message.metadata.src_node_id
    assert reply.error.reason == STARTED_ANEW
    assert list(line.pushed) == [reply.object_id]
    settle(Unfinished(tmp_path / "unfinished.json"), line.send, line.push, STARTED_ANEW)
    assert len(line.sent) == 1


def reply_to(message: Message) -> Message:
    return Message(RecordDict(), reply_to=message)


def test_what_was_answered_is_owed_no_more(tmp_path: Path, message: Message) -> None:
    unfinished = Unfinished(tmp_path / "unfinished.json")
    unfinished.took(message)
    with pytest.raises(httpx.ConnectError):
        answering(unfinished, Line(httpx.ConnectError("gone")).send)(reply_to(message), None, 0.0)
    assert Unfinished(tmp_path / "unfinished.json").message is not None
    unfinished.took(message)
    answering(unfinished, Line().send)(reply_to(message), _Tree(), 0.0)
    assert Unfinished(tmp_path / "unfinished.json").message is None


class _Tree:
    object_id = "x"


@pytest.mark.parametrize("fault", [None, RunNotRunningException()])
def test_a_reply_to_a_study_that_has_ended_is_not_taken_for_the_awaited_one(
    fault: BaseException | None, tmp_path: Path, message: Message
) -> None:
    """It comes first; the SuperNode then waits on, instead of asking for more and falling one behind."""
    late = reply_to(message)
    late.metadata.__dict__["_reply_to_message_id"] = "of a study that was killed"
    there = [[late], [reply_to(message)], [late]]
    unfinished = Unfinished(tmp_path / "unfinished.json")
    unfinished.took(message)
    owed = []

    def push() -> None:
        """As Flower's: it sends what is there, and says in its log what did not go out."""
        for reply in there.pop(0):
            with suppress(RunNotRunningException):
                answering(unfinished, Line(fault).send)(reply, _Tree(), 0.0)
            owed.append(Unfinished(tmp_path / "unfinished.json").message is not None)

    until_awaited(unfinished, push)()
    assert there == [[late]]
    assert owed == [True, fault is not None]


@pytest.mark.parametrize("fault", [RunNotRunningException(), httpx.ConnectError("gone"), ValueError("x")])
def test_a_study_that_is_over_waits_for_no_answer(
    fault: BaseException, tmp_path: Path, message: Message
) -> None:
    unfinished = Unfinished(tmp_path / "unfinished.json")
    unfinished.took(message)
    line = Line(fault)
    settle(unfinished, line.send, line.push, STARTED_ANEW)
    assert Unfinished(tmp_path / "unfinished.json").message is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"node": 1, "message": "no base 64"}'])
def test_a_damaged_file_stops_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "unfinished.json").write_text(content)
    unfinished = Unfinished(tmp_path / "unfinished.json")
    assert unfinished.message is None
    line = Line()
    settle(unfinished, line.send, line.push, STARTED_ANEW)
    assert line.sent == []


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, message: Message) -> None:
    (tmp_path / "file").touch()
    unfinished = Unfinished(tmp_path / "file" / "unfinished.json")
    unfinished.joined(12)
    unfinished.took(message)
    assert unfinished.message is not None


def test_a_site_leaves_before_it_joins(tmp_path: Path) -> None:
    calls: list[tuple[str, Any]] = []

    class Client:
        def ActivateNode(self, request: Any) -> str:
            calls.append(("activate", request))
            return "in"

        def DeactivateNode(self, request: Any) -> None:
            calls.append(("deactivate", request.node_id))
            raise httpx.HTTPStatusError("offline already", request=None, response=None)  # type: ignore[arg-type]

    unfinished = Unfinished(tmp_path / "unfinished.json")
    joining = leaving_first(Client, unfinished)()  # type: ignore[arg-type, call-arg]
    assert joining.ActivateNode("me") == "in"  # type: ignore[comparison-overlap, arg-type]
    assert calls == [("activate", "me")]
    unfinished.joined(12)
    joining.ActivateNode("me")  # type: ignore[arg-type]
    assert calls[1:] == [("deactivate", 12), ("activate", "me")]


def test_the_heart_beats_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "exponential", lambda max_delay: iter([0.01] * 9))
    enough, beats = threading.Event(), []

    def beat() -> bool:
        beats.append(1)
        if len(beats) < 3:
            raise httpx.HTTPStatusError("500", request=None, response=None)  # type: ignore[arg-type]
        enough.set()
        return True

    sender = LastingHeartbeat(beat)
    sender.start()
    assert enough.wait(10)
    sender.stop()
