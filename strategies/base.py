"""What a federated algorithm is: one class holding the server's half and the site's half.

The server's half keeps the shape of Flower's strategies (`configure_train`, `aggregate_train`), so
Flower's own plug into the same round loop. The aggregation itself is a pure function over arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from hymate.config import Frozen
from hymate.train.loop import LocalHook
from strategies.wire import ARRAYS, CONFIG, METRICS, WEIGHT, pack_weights, unpack_weights

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Update:
    """One site's reply to a round: its weights after local training, and how much they count."""

    arrays: Arrays
    weight: float


class Algorithm(ABC):
    """One federated algorithm.

    Subclasses name themselves, may add `Settings` (keys of the study's `strategy:`), implement
    `aggregate`, and override `local_hook` where the site does more than plain training.
    """

    name: ClassVar[str]

    class Settings(Frozen):
        """Keys of `strategy:` besides `name`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: Arrays = {}
        self.message_type = "train"

    @abstractmethod
    def aggregate(self, server_round: int, current: Arrays, updates: Sequence[Update]) -> Arrays:
        """The next global weights. Pure: no state but what the arguments and settings hold.

        `updates` is non-empty, in a fixed order of sites, with the same keys and shapes as `current`.
        """

    def state(self) -> Arrays:
        """What the server's half remembers between rounds: kept in every checkpoint. Nothing by default."""
        return {}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:  # noqa: B027 (most have no state)
        """Go on from `state`, as it was after the last complete round."""

    def local_hook(self) -> LocalHook | None:
        """What the site does inside its local loop; None is plain training."""
        return None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message per node of `grid`, carrying the global weights and the round's record."""
        self.current = unpack_weights(RecordDict({ARRAYS: arrays}))
        content = RecordDict({ARRAYS: arrays, CONFIG: config})
        return [
            Message(content, dst_node_id=node, message_type=self.message_type) for node in grid.get_node_ids()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold validated replies, in the order given, into the next global weights."""
        updates = [Update(unpack_weights(reply.content), float(_weight(reply.content))) for reply in replies]
        if not updates:
            return None, None
        return pack_weights(self.aggregate(server_round, self.current, updates)), None


def _weight(content: RecordDict) -> float:
    value = content.metric_records[METRICS][WEIGHT]
    assert isinstance(value, int | float)  # WEIGHT is a scalar by construction in `wire.pack`
    return float(value)
