"""Flower's FedAvg over all sites, the end of each round written down."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


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
    strategy.start(grid=grid, initial_arrays=first, num_rounds=int(settings["rounds"]))
    done = {"ends": strategy.ends, "replies": strategy.replies}
    Path(str(settings["out"])).write_text(json.dumps(done), encoding="utf-8")
