"""Every site of a simulation behind one `Grid`: Flower's messages go to Ray workers that stay warm.

A worker answers for one site after the other with the ClientApp that hospitals run, one message at a time, so
no more updates are under way than there are workers. The next message lies with it already, so that it never
waits for the coordinator. The message expected to take longest goes first, so that none is left to work alone
at a round's end. Flower's own engine looks at every message for every site ten times a second, and a worker
that dies keeps its place there and fails all it is given.
"""

from __future__ import annotations

import gc
import logging
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from uuid import uuid4

import ray
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from server.failure import StudyFailure
from server.simulation_layout import SimulatedSite
from strategies.wire import ARRAYS

FIRST_NODE = 1
COLLECTED = 50_000, 20, 20
"""When a worker looks for garbage: after so many new objects, not 700. Training leaves hardly a cycle."""
LOOK_S = 0.2
"""How often the thread that hands out messages sees whether the grid was closed."""


class Worker:
    """A process in which sites answer, one message after the other."""

    def __init__(self, client_app: str, log: Path, memory_limit: int) -> None:
        """Args: client_app: MODULE:NAME; log: what the sites' own logs would hold; memory_limit: bytes it may
        allocate, 0: any."""
        logging.basicConfig(filename=log, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
        self._app = resolve_name(client_app)
        gc.set_threshold(*COLLECTED)
        if memory_limit:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
        self._arrays: tuple[ray.ObjectRef[ArrayRecord], ArrayRecord] | None = None
        self._kinds: set[str] = set()
        """Of messages answered so far."""

    def ready(self) -> None:
        """Answered once the process runs: on a cluster it may wait for a machine that has room."""

    def answer(self, message: Message, context: Context, arrays: Sequence[ray.ObjectRef[ArrayRecord]]) -> Any:
        """The reply and the seconds it took.

        `arrays` is empty or names those of the message: all sites of a round get the same ones, and a
        worker fetches them once.
        """
        began = time.perf_counter()
        for known in arrays:
            if self._arrays is None or self._arrays[0] != known:
                self._arrays = (known, ray.get(known))
            message.content[ARRAYS] = self._arrays[1]
        answered = self._app(message, context), time.perf_counter() - began
        kind = message.metadata.message_type
        if kind not in self._kinds:  # what its first answer imported stays, and is not looked through again
            self._kinds.add(kind)
            gc.collect()
            gc.freeze()
        return answered


@dataclass(frozen=True)
class _Letter:
    """A message on its way to its site."""

    message: Message
    arrays: tuple[ray.ObjectRef[ArrayRecord], ...]

    @property
    def kind(self) -> str:
        return self.message.metadata.message_type


@dataclass
class _Post:
    """A worker and the messages it has, which it answers in their order."""

    worker: Any
    starting: ray.ObjectRef[None] | None
    """Until it is ready it gets none: where a machine of a cluster went away it may never be."""
    letters: dict[ray.ObjectRef[Any], _Letter] = field(default_factory=dict)
    """By what will be the answer."""


class Costs:
    """Seconds that a site is expected to take for a message, from its own last one of that kind."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        self._sizes = sizes
        self._last: dict[str, dict[int, float]] = defaultdict(dict)

    def measured(self, kind: str, node: int, seconds: float) -> None:
        self._last[kind][node] = seconds

    def expected(self, kind: str, node: int) -> float:
        """Of a site not measured yet, by its size: at the measured ones' pace, where there are any."""
        known = self._last[kind]
        if node in known:
            return known[node]
        pace = sum(known.values()) / sum(self._sizes[other] for other in known) if known else 1.0
        return pace * self._sizes[node]


class SimulatedGrid:
    """What the round loop uses of Flower's `Grid`. Nodes are numbered in the order of the sites' names."""

    def __init__(self, sites: Sequence[SimulatedSite], workers: int, start: Callable[[], Any]) -> None:
        """Args: start: a new worker, as Ray's handle of a `Worker`."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1  # messages ask for it
        self._new_worker = start
        self._contexts = {
            node: Context(1, node, {"site": str(site.file)}, RecordDict(), {})
            for node, site in enumerate(sites, FIRST_NODE)
        }
        self._costs = Costs({node: site.size for node, site in enumerate(sites, FIRST_NODE)})
        self._waiting: list[_Letter] = []
        """Ascending by cost: the last one is next."""
        self._posts = [_Post(*self._start()) for _ in range(workers)]
        self._replies: dict[str, Message] = {}
        """By the message they answer."""
        self._changed = threading.Condition()
        self._fresh = self._closed = False
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._keep_handing_out, name="simulated-grid", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def get_node_ids(self) -> list[int]:
        """All sites: those of a simulation are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages to hand out; their ids."""
        shared: dict[int, ray.ObjectRef[ArrayRecord]] = {}
        letters = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            arrays = message.content.array_records.get(ARRAYS)
            if arrays is None:
                letters.append(_Letter(message, ()))
            else:
                if id(arrays) not in shared:
                    shared[id(arrays)] = ray.put(arrays)
                letters.append(_Letter(_without_arrays(message), (shared[id(arrays)],)))
        with self._changed:
            self._waiting.extend(letters)
            self._waiting.sort(
                key=lambda letter: self._costs.expected(letter.kind, letter.message.metadata.dst_node_id)
            )
            self._changed.notify_all()
        return [letter.message.metadata.message_id for letter in letters]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies to these messages that are there; each is given once."""
        with self._changed:
            if self._fault is not None:
                raise StudyFailure(f"Ray failed: {_first(self._fault)}")
            return [self._replies.pop(known) for known in message_ids if known in self._replies]

    def wait(self, seconds: float) -> None:
        """Wait so long, or until another reply is there."""
        with self._changed:
            self._changed.wait_for(lambda: self._fresh, seconds)
            self._fresh = False

    def _keep_handing_out(self) -> None:
        try:
            self._hand_out()
        except Exception as fault:  # said by whoever asks for replies next: none will come any more
            with self._changed:
                self._fault, self._fresh = fault, True
                self._changed.notify_all()

    def _hand_out(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting or self._at_work())
                if self._closed:
                    return
                while self._waiting and (post := self._free()) is not None:
                    letter = self._waiting.pop()
                    context = self._contexts[letter.message.metadata.dst_node_id]
                    post.letters[post.worker.answer.remote(letter.message, context, letter.arrays)] = letter
            at_work = self._at_work()
            starting = {post.starting: post for post in self._posts if post.starting is not None}
            done, _ = ray.wait([*starting, *at_work], num_returns=1, timeout=LOOK_S)
            for known in done:
                if known in starting:  # or it could not start: then its first message says why
                    starting[known].starting = None
                else:
                    self._take(at_work[known], known)

    def _start(self) -> tuple[Any, ray.ObjectRef[None]]:
        """A new worker, and what says that it is ready."""
        worker = self._new_worker()
        return worker, worker.ready.remote()

    def _free(self) -> _Post | None:
        """Who gets the next message, if anybody. The last ones wait until a worker is idle: whoever is
        first takes them."""
        ready = [post for post in self._posts if post.starting is None]
        most = 1 + (len(self._waiting) > len(ready))
        free = [post for post in ready if len(post.letters) < most]
        return min(free, key=lambda post: len(post.letters), default=None)

    def _at_work(self) -> dict[ray.ObjectRef[Any], _Post]:
        """Workers by the answer that they are working on."""
        return {next(iter(post.letters)): post for post in self._posts if post.letters}

    def _take(self, post: _Post, answer: ray.ObjectRef[Any]) -> None:
        letter = post.letters.pop(answer)
        message = letter.message
        unread: list[_Letter] = []
        try:
            reply, seconds = ray.get(answer)
        except ray.exceptions.RayTaskError as crash:
            fault = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(crash.cause))
            reply = Message(fault, reply_to=message)
        except ray.exceptions.RayError as gone:
            reply = Message(Error(ErrorCode.UNKNOWN, f"its process ended: {_first(gone)}"), reply_to=message)
            unread = list(post.letters.values())
            (post.worker, post.starting), post.letters = self._start(), {}
        else:
            self._costs.measured(letter.kind, message.metadata.dst_node_id, seconds)
        with self._changed:
            self._waiting.extend(unread)
            self._replies[message.metadata.message_id] = reply
            self._fresh = True
            self._changed.notify_all()


def _without_arrays(message: Message) -> Message:
    """The same message without its arrays; the one given keeps them."""
    asked = message.metadata
    content = RecordDict({name: part for name, part in message.content.items() if name != ARRAYS})
    light = Message(content, asked.dst_node_id, asked.message_type, ttl=asked.ttl)
    light.metadata.__dict__["_message_id"] = asked.message_id
    return light


def _first(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]
