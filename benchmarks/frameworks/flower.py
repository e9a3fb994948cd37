"""The work of `benchmarks.frameworks.work` in the shape of Flower's quickstart, on Flower's own engine.

python -m benchmarks.frameworks.flower RUN ROUNDS WORKERS
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.frameworks.work import Work


@cache
def work_of(run: str) -> Work:
    """One for each process: what can be kept between messages is kept."""
    return Work(Path(run))


def client_app(run: str) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        work = work_of(run)
        model = work.model()
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        number = int(str(message.content.config_records["config"]["server-round"]))
        stays = work.do(model, work.store(int(str(context.node_config["partition-id"]))), number)
        content = RecordDict(
            {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": stays})}
        )
        return Message(content, reply_to=message)

    return app


def server_app(work: Work, rounds: int) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=len(work.sites))
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(work.model().state_dict()),
            num_rounds=rounds,
            evaluate_fn=lambda number, arrays: work.round_ended(),
        )

    return app


def main() -> None:
    run, rounds, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    work = Work(Path(run))
    run_simulation(
        server_app=server_app(work, rounds),
        client_app=client_app(run),
        num_supernodes=len(work.sites),
        backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": workers}},
    )
    work.tell()
