"""Flower's FedAvg over all sites, the end of each round written down."""

import json
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()
POLL_S = 0.1


def answers(grid: Grid, messages: Iterable[Message], timeout: float) -> list[Message]:
    """What `Grid.send_and_receive` does, which looks for replies every 3 s, at a quicker pace."""
    waited_for = set(grid.push_messages(messages))
    replies: list[Message] = []
    end = time.monotonic() + timeout
    while waited_for and time.monotonic() < end:
        time.sleep(POLL_S)
        found = list(grid.pull_messages(waited_for))
        waited_for -= {reply.metadata.reply_to_message_id for reply in found}
        replies += found
    return replies


class TimedFedAvg(FedAvg):
    """FedAvg that remembers when it had averaged."""

    def __init__(self, sites: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        self.ends: list[float] = []
        self.replies: list[int] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As FedAvg does it."""
        held = list(replies)
        result = super().aggregate_train(server_round, held)
        self.ends.append(time.time())
        self.replies.append(sum(message.has_content() for message in held))
        return result


@app.main()
def main(grid: Grid, context: Context) -> None:
    """So many rounds, then the file that says when each ended."""
    settings = context.run_config
    strategy = TimedFedAvg(int(settings["sites"]))
    with np.load(str(settings["weights"])) as arrays:
        first = ArrayRecord({name: Array(arrays[name]) for name in arrays.files})
    if settings["quick"]:
        grid.send_and_receive = partial(answers, grid)  # type: ignore[method-assign]
    strategy.start(grid=grid, initial_arrays=first, num_rounds=int(settings["rounds"]))
    done = {"ends": strategy.ends, "replies": strategy.replies}
    Path(str(settings["out"])).write_text(json.dumps(done), encoding="utf-8")
