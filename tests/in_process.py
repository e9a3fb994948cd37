"""A federation inside one process: the real ClientApp behind a grid that only carries messages.

Everything but the transport is the product's own code; what is gained is speed, and replies that
come in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app as client_app
from hymate.data.synthetic import generate_cohort, write_cohort
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


class InProcessGrid:
    """The part of Flower's Grid the round loop uses. Node ids are 10, 11, ... in site order."""

    def __init__(self, run: Path, sites: list[str], *, seed: int = 0, tamper: Tamper | None = None) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
        self._rng = np.random.default_rng(seed)
        self._tamper = tamper
        self._sites = {10 + index: name for index, name in enumerate(sites)}
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": node - 10},
                state=RecordDict(),
                run_config={"run": str(run)},
            )
            for node in self._sites
        }
        self.sent: list[Message] = []
        self.replies: list[Message] = []

    def get_node_ids(self) -> list[int]:
        return list(self._sites)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            self.sent.append(message)
            node = message.metadata.dst_node_id
            try:
                reply = client_app(message, self._contexts[node])
            except Exception as crash:  # what Flower's engine does with a crash
                reply = Message(Error(code=2, reason=str(crash)), reply_to=message)
            if self._tamper:
                reply = self._tamper(self._sites[node], reply)
            reply.metadata.__dict__["_src_node_id"] = node
            replies.append(reply)
        self.replies += replies
        self._rng.shuffle(replies)  # sites answer in any order
        return replies
