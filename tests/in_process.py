"""A federation inside one process: the real ClientApp behind a grid that only carries messages.

Everything but the transport is the product's own code; what is gained is speed, and replies that
come in any order.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from benchmarks.sites import Sites, delivered
from hymate.data.synthetic import generate_cohort, write_cohort
from server.exchange import Clock
from server.study import StudyConfig

Tamper = Callable[[str, Message], Message]


def small_study(**changes: Any) -> StudyConfig:
    """A study over tiny synthetic hospitals; `changes` replace whole sections."""
    content: dict[str, Any] = {
        "name": "small",
        "model": {"d_model": 8, "mamba_blocks": 1, "d_state": 4, "attention_heads": 2, "d_static": 4},
        "pretrain": {"rounds": 1, "batch_size": 16},
        "finetune": {"rounds": 2, "batch_size": 16},
        "simulation": {"synthetic": {"hospitals": 2, "stays": 60}, "min_cell": 1},
        **changes,
    }
    return StudyConfig.model_validate(content)


def lay_out(run: Path, hospitals: int, stays: int = 60, min_cell: int = 1) -> list[str]:
    """Site files and data of small synthetic hospitals below `run`, as `hymate-simulate` lays them out."""
    write_cohort(generate_cohort(hospitals, stays, seed=0), run / "data")
    names = sorted(path.parent.parent.name for path in run.glob("data/*/metadata/dataset.json"))
    for name in names:
        home = run / "sites" / name
        home.mkdir(parents=True)
        site = {"name": name, "data": str(run / "data" / name), "policy": {"min_cell": min_cell}}
        (home / "site.yaml").write_text(yaml.safe_dump(site))
    return names


def move_in(hospitals: Path, folder: Path) -> None:
    """The sites that `lay_out` made below `hospitals`, for another study: they keep windows and stores, which
    follow from data and vocabulary alone, in one place for all studies."""
    shutil.copytree(hospitals / "sites", folder / "sites")
    for path in folder.glob("sites/*/site.yaml"):
        with path.open("a") as file:
            file.write(f"cache: {hospitals / 'caches' / path.parent.name}\n")


class VirtualTime(Clock):
    """Time that passes only when somebody waits; `at` runs things when their time has come."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.plans: list[tuple[float, Callable[[], None]]] = []
        super().__init__(now=lambda: self.seconds, sleep=self._sleep)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        self.plans.append((seconds, action))

    def _sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 1e-3)
        for plan in [plan for plan in self.plans if plan[0] <= self.seconds]:
            self.plans.remove(plan)
            plan[1]()


class InProcessGrid:
    """The part of Flower's Grid the round loop uses. Node ids are 10, 11, ... in site order.

    A site answers at once, unless `delay` says how many (virtual) seconds it takes for a message. Nodes
    in `away` are not connected: what they have not answered by then comes back as Flower's error.
    """

    def __init__(
        self,
        run: Path,
        sites: list[str],
        *,
        seed: int = 0,
        tamper: Tamper | None = None,
        delay: Callable[[str, Message], float] = lambda site, message: 0.0,
        time: VirtualTime | None = None,
    ) -> None:
        self._answering = Sites(run, sites)
        self._rng = np.random.default_rng(seed)
        self._tamper = tamper
        self._delay = delay
        self.time = time or VirtualTime()
        self.sites = self._answering.names
        self.away: set[int] = set()
        self._on_the_way: dict[str, tuple[float, int, Message]] = {}
        self.sent: list[Message] = []
        self.replies: list[Message] = []

    def get_node_ids(self) -> list[int]:
        return [node for node in self.sites if node not in self.away]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        taken = []
        for message in messages:
            node = message.metadata.dst_node_id
            if node not in self.sites:
                continue
            message.metadata.__dict__["_message_id"] = f"message-{len(self.sent):06d}"
            self.sent.append(message)
            taken.append(message.metadata.message_id)
            ready = self.time.now() + self._delay(self.sites[node], message)
            self._on_the_way[message.metadata.message_id] = (ready, node, message)
        return taken

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = []
        for message_id in sorted(message_ids):
            ready, node, message = self._on_the_way.get(message_id, (math.inf, -1, None))
            if message is None:
                continue
            if node in self.away:
                error = Error(code=ErrorCode.NODE_UNAVAILABLE, reason="Node Unavailable")
                replies.append(Message(error, reply_to=message))
            elif ready <= self.time.now():
                replies.append(self._answer(node, message))
            else:
                continue
            del self._on_the_way[message_id]
        self.replies += replies
        self._rng.shuffle(replies)  # sites answer in any order
        return replies

    def ask(self, message: Message) -> Message:
        """One message to one site, outside any round."""
        (message_id,) = self.push_messages([message])
        (reply,) = self.pull_messages([message_id])
        return reply

    def _answer(self, node: int, message: Message) -> Message:
        reply = self._answering.answer(message)
        if self._tamper:
            reply = self._tamper(self.sites[node], reply)
        return delivered(reply, message)
