"""One exchange with some sites: send, wait, ask again who failed, until all answered or the time is up.

It is ours because Flower's `send_and_receive` returns only when all have answered or the time is up:
a site that fails in the first minute could not be asked again before the last. A reply is known by the
message it answers, which SuperLink lets only the node answer that it was sent to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from pydantic import BaseModel

from hymate.errors import InputFault
from server.journal import Journal
from server.participation import ParticipationConfig
from server.roster import Roster
from strategies.wire import SiteRefused, unpack

Record = TypeVar("Record", bound=BaseModel)

POLL_S = (0.1, 1.0)
"""Shortest and longest wait between two looks for replies."""
RETRY_S = 2.0
"""Wait before a site is asked again; it doubles with every try."""


@dataclass(frozen=True)
class Clock:
    """Time, so that tests need not wait for it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Reply(Generic[Record]):
    """One site's valid answer."""

    site: str
    record: Record
    content: RecordDict
    """What it came with: empty where the step's `accept` took all of it."""


@dataclass(frozen=True)
class Step:
    """One message to a site, and what may come back.

    `accept` takes the record into account and says what is wrong with it, if anything; the reply to a
    step that is not `last` only clears the way for the next one.
    """

    action: str
    content: RecordDict
    kind: type[BaseModel]
    accept: Callable[[Reply[Any]], str | None] = lambda reply: None
    last: bool = True
    weight: Callable[[str], float | None] = lambda site: None
    """How much a site's reply counts, once it was accepted."""
    taken: bool = False
    """Whether `accept` takes all of a reply's arrays: then they are not kept beside."""


@dataclass
class _Task:
    """One site's way through an exchange."""

    node: int
    step: Step
    asked_at: float
    attempts: int = 1
    due: float = 0.0
    """When to send the step; infinite while the site is away."""
    message_id: str = ""
    """The message that is out; empty while the step waits to be sent."""


@dataclass
class Ending:
    """What an exchange came to."""

    replies: dict[int, Reply[Any]] = field(default_factory=dict)
    barred: set[int] = field(default_factory=set)
    """Nodes whose reply was quarantined: asking again would bring the same."""


class Exchange:
    """Exchanges under the study's rules; remembers what is still under way when one ends."""

    def __init__(
        self,
        grid: Grid,
        rules: ParticipationConfig,
        journal: Journal,
        roster: Roster,
        clock: Clock,
    ) -> None:
        self._grid = grid
        self._rules = rules
        self._journal = journal
        self._roster = roster
        self._label = roster.label
        self._clock = clock
        self._overdue: dict[str, tuple[str, int, str, float]] = {}

    def run(
        self,
        phase: str,
        server_round: int,
        nodes: Iterable[int],
        next_step: Callable[[int], Step],
        enough: Callable[[set[int]], bool],
    ) -> Ending:
        """Ask these nodes and wait for them.

        Ends when every node has answered or failed for good, when the deadline has passed, or when
        only nodes that lost their connection are missing and `enough` others answered.
        """
        began = self._clock.now()
        deadline = began + self._rules.deadline_minutes * 60
        ending = Ending()
        tasks = {node: _Task(node, next_step(node), began) for node in nodes}
        for node in tasks:
            self._journal.participation(phase, server_round, self._label(node), "asked")
        while tasks:
            self._send(tasks)
            for message in self._pull(tasks):
                answered = self._node_of(tasks, message)
                if answered is not None:
                    self._take(phase, server_round, tasks, answered, message, next_step, ending)
            now = self._clock.now()
            waiting = [task for task in tasks.values() if task.due != math.inf]
            if not tasks or now >= deadline or (not waiting and enough(set(ending.replies))):
                break
            self._clock.sleep(max(0.0, min(_poll_s(now - began), deadline - now)))
            self._wake(tasks, next_step)
        for task in tasks.values():
            self._give_up(phase, server_round, task, timed_out=self._clock.now() >= deadline)
        return ending

    def _send(self, tasks: dict[int, _Task]) -> None:
        """Push every step whose time has come."""
        now = self._clock.now()
        ready = [task for task in tasks.values() if not task.message_id and task.due <= now]
        if not ready:
            return
        messages = [
            Message(
                task.step.content,
                dst_node_id=task.node,
                message_type=task.step.action,
                # Kept past the deadline, so that a late reply is seen, and a site that was away does
                # not find the requests of a whole night when it is back.
                ttl=2 * self._rules.deadline_minutes * 60,
            )
            for task in ready
        ]
        taken = set(self._grid.push_messages(messages))
        for task, message in zip(ready, messages, strict=True):
            if message.metadata.message_id in taken:
                task.message_id = message.metadata.message_id
            else:  # SuperLink does not know the node, or not any more
                task.due = math.inf

    def _pull(self, tasks: dict[int, _Task]) -> list[Message]:
        """Replies that are there, to this exchange's messages first of all."""
        waited_for = {task.message_id for task in tasks.values() if task.message_id} | self._overdue.keys()
        if not waited_for:
            return []
        return [m for m in self._grid.pull_messages(waited_for) if not self._was_late(m)]

    def _was_late(self, message: Message) -> bool:
        """Write down a reply to an exchange that is over."""
        known = self._overdue.pop(message.metadata.reply_to_message_id, None)
        if known is None:
            return False
        phase, server_round, site, asked_at = known
        if not message.has_error():
            self._journal.participation(
                phase,
                server_round,
                site,
                "dropped",
                reason="its reply came after the deadline and was not used",
                seconds=round(self._clock.now() - asked_at, 3),
            )
        return True

    def _take(
        self,
        phase: str,
        server_round: int,
        tasks: dict[int, _Task],
        node: int,
        message: Message,
        next_step: Callable[[int], Step],
        ending: Ending,
    ) -> None:
        task = tasks[node]
        task.message_id = ""
        if message.has_error() and message.error.code == ErrorCode.NODE_UNAVAILABLE:
            task.due = math.inf
            self._roster.doubt(node)
            self._journal.participation(
                phase, server_round, self._label(node), "lost", reason="lost its connection while it worked"
            )
            return
        outcome, reason, reply = _judge(message, task.step, self._label(node))
        said: dict[str, Any] = {
            "seconds": round(self._clock.now() - task.asked_at, 3),
            "attempts": task.attempts,
        }
        if reply is not None and not task.step.last:
            did = f"answered '{task.step.action}' first"
            self._journal.participation(phase, server_round, self._label(node), "joined", reason=did)
            task.step = next_step(node)
            return
        if reply is None:
            self._roster.doubt(node)
        if outcome in ("failed", "refused") and task.attempts <= self._rules.retries:
            self._journal.participation(
                phase, server_round, self._label(node), "retried", reason=f"{outcome}: {reason}"
            )
            task.due = self._clock.now() + RETRY_S * 2 ** (task.attempts - 1)
            task.attempts += 1
            task.step = next_step(node)
            return
        del tasks[node]
        if reply is not None:
            ending.replies[node] = replace(reply, content=RecordDict()) if task.step.taken else reply
            said |= {"weight": task.step.weight(reply.site)}
        elif outcome == "quarantined":
            ending.barred.add(node)
        self._journal.participation(phase, server_round, self._label(node), outcome, reason=reason, **said)

    def _wake(self, tasks: dict[int, _Task], next_step: Callable[[int], Step]) -> None:
        """Sites that were away are asked again once they are back."""
        gone = [task for task in tasks.values() if task.due == math.inf]
        if gone:
            present = set(self._grid.get_node_ids())
            for task in gone:
                if task.node in present:
                    task.due, task.step = self._clock.now(), next_step(task.node)
                    task.attempts += 1

    def _give_up(self, phase: str, server_round: int, task: _Task, *, timed_out: bool) -> None:
        site = self._label(task.node)
        seconds = round(self._clock.now() - task.asked_at, 3)
        if task.due == math.inf or not timed_out:
            outcome, reason = "failed", "lost its connection and was not back in time"
        else:
            outcome, reason = "late", f"no reply within {self._rules.deadline_minutes:g} min"
        self._roster.doubt(task.node)
        if task.message_id:
            self._overdue[task.message_id] = (phase, server_round, site, task.asked_at)
        self._journal.participation(
            phase, server_round, site, outcome, reason=reason, seconds=seconds, attempts=task.attempts
        )

    @staticmethod
    def _node_of(tasks: dict[int, _Task], message: Message) -> int | None:
        answered = message.metadata.reply_to_message_id
        return next((node for node, task in tasks.items() if task.message_id == answered), None)


def _poll_s(elapsed: float) -> float:
    """Seconds to the next look: soon in a short exchange, seldom in a long one."""
    shortest, longest = POLL_S
    return min(max(elapsed / 20, shortest), longest)


def _judge(message: Message, step: Step, site: str) -> tuple[str, str, Reply[Any] | None]:
    """Outcome, reason and, where it holds, the reply of one message."""
    if message.has_error():
        return "failed", _first_line(message.error.reason), None
    try:
        record = unpack(message.content, step.kind)
    except SiteRefused as refused:
        return "refused", refused.refusal.reason, None
    except InputFault as fault:
        return "quarantined", str(fault), None
    reply = Reply(str(getattr(record, "site", site)), record, message.content)
    try:
        fault_found = step.accept(reply)
    except InputFault as fault:
        fault_found = str(fault)
    if fault_found:
        return "quarantined", fault_found, None
    return "replied", "", reply


def _first_line(reason: str | None) -> str:
    return (reason or "no reason given").strip().splitlines()[0]
