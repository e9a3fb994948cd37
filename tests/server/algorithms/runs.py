"""Whole studies under one strategy, and what can be read from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Message
from flwr.serverapp import Grid
from torch import nn

from client.agreed import agreed_store
from client.site import load_site
from client.state import StrategyMemory
from hymate.data.store import TripletStore
from hymate.evaluate.histograms import count_scores
from hymate.model.hymate import HyMaTE, build_model
from hymate.protocol import FinetuneRequest, TrainReply
from hymate.score_reports import Cells, ScoreReport
from hymate.scoring_protocol import EvaluateReply
from hymate.train.loop import finetune_epochs, make_optimiser
from hymate.train.saved_model import load_model
from server.app import run_study
from server.checkpoint import Checkpoint, Checkpoints
from strategies.local_layers import local_names
from strategies.wire import pack, unpack, unpack_weights
from tests.in_process import InProcessGrid, Tamper, VirtualTime, move_in, small_study
from tests.server.studies import origin

SITES = ["hospital_1", "hospital_2", "hospital_3"]

FINETUNE, PRETRAIN, SCORE = "train.finetune", "train.pretrain", "evaluate.score"

OWN = ["head", "norms"]

STRATEGIES: dict[str, dict[str, Any]] = {
    "own": {"local_layers": OWN},
    "scaffolded": {"name": "scaffold", "pretrain": {"name": "fedavg"}},
    "fair": {"name": "fairfed", "group": "GENDER//F", "metric": "accuracy", "beta": 0.2},
}


@dataclass
class Ran:
    """A study that ended."""

    folder: Path
    grid: InProcessGrid

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "report.json").read_text()))

    def last(self, phase: str = "finetune") -> Checkpoint:
        found = Checkpoints(self.folder).latest(phase)
        assert found is not None
        return found

    def said(self, kind: str, site: str | None = None) -> list[dict[str, np.ndarray]]:
        """Arrays of the replies of a kind."""
        return [
            unpack_weights(reply.content)
            for reply in self.grid.replies
            if reply.metadata.message_type == kind
            and not reply.has_error()
            and (site is None or unpack(reply.content, TrainReply).site == site)
        ]

    def told(self, kind: str) -> list[Message]:
        return [message for message in self.grid.sent if message.metadata.message_type == kind]

    def memory(self, site: str, phase: str = "finetune") -> StrategyMemory:
        return StrategyMemory(
            load_site(self.folder / "sites" / site / "site.yaml"), "small", phase, self.last().study["run"]
        )

    def remembered(self, site: str) -> dict[str, torch.Tensor]:
        """Of the last round in which the site counted."""
        return self.memory(site).recall(self.last().study["sites"][site]["folded"]["finetune"])

    def kept(self, site: str, phase: str = "finetune") -> list[int]:
        """Rounds of which the site has something on its disk."""
        folder = self.folder / "sites" / site / "state" / "small"
        return sorted(int(path.stem.split("-")[1]) for path in folder.glob(f"*/{phase}/strategy-*"))

    def own_model(self, site: str) -> nn.Module:
        (folder,) = (self.folder / "sites" / site).glob("state/small/*/model")
        return load_model(folder).model

    def store(self, site: str) -> TripletStore:
        request = unpack(self.told(FINETUNE)[0].content, FinetuneRequest)
        config = load_site(self.folder / "sites" / site / "site.yaml")
        return agreed_store(config, request.task, request.vocabulary_hash)


def carry(
    laid_out: Path,
    folder: Path,
    strategy: dict[str, Any],
    *,
    hospitals: int = 2,
    rounds: int = 2,
    epochs: int = 1,
    tamper: Tamper | None = None,
    delay: Callable[[str, Message], float] = lambda site, message: 0.0,
    min_cell: int = 1,
    **participation: Any,
) -> Ran:
    """Run a study of so many hospitals, or go on with it."""
    if not folder.exists():
        move_in(laid_out, folder)
        for path in folder.glob("sites/*/site.yaml"):
            path.write_text(path.read_text().replace("min_cell: 1", f"min_cell: {min_cell}"))
    study = small_study(
        strategy=strategy,
        pretrain={"rounds": 1, "batch_size": 16, "local_epochs": epochs},
        finetune={"rounds": rounds, "batch_size": 16, "local_epochs": epochs, "patience": 30},
        participation=participation,
    )
    grid = InProcessGrid(folder, SITES[:hospitals], tamper=tamper, delay=delay, time=VirtualTime())
    run_study(cast(Grid, grid), study, folder, expected_sites=hospitals, clock=grid.time)
    return Ran(folder, grid)


def weights(ran: Ran) -> dict[str, bytes]:
    """Shared weights after the last round."""
    return {name: array.tobytes() for name, array in ran.last().weights.items()}


def request_of(message: Message) -> dict[str, Any]:
    return dict(json.loads(str(message.content.config_records["config"]["json"])))


def own_names(ran: Ran) -> frozenset[str]:
    return local_names(OWN, ran.last().weights)


def whole(ran: Ran, arrays: dict[str, np.ndarray], layers: dict[str, torch.Tensor]) -> HyMaTE:
    """The study's model under these weights, and a site's layers in their place."""
    request = unpack(ran.told(FINETUNE)[0].content, FinetuneRequest)
    store = ran.store("hospital_1")
    model = build_model(
        request.model,
        codes=store.header.codes,
        static_width=len(store.header.static_names),
        time_scale_hours=request.task.lookback_hours,
        seed=request.seed,
    )
    own = {name.removeprefix("layers/"): x for name, x in layers.items() if name.startswith("layers/")}
    model.load_state_dict({**{name: torch.from_numpy(x) for name, x in arrays.items()}, **own})
    return model


def fine_tuned(
    ran: Ran, site: str, model: HyMaTE, request: FinetuneRequest, epochs: list[int], hook: Any = None
) -> None:
    """These epochs on the site's stays, as a training without a federation has them."""
    optimiser = make_optimiser(model, request.finetune)
    for number in epochs:
        finetune_epochs(
            model,
            ran.store(site),
            request.finetune,
            optimiser,
            positive_weight=request.positive_weight,
            seed=request.seed,
            first_epoch=number,
            epochs=1,
            hook=hook,
        )


def ranked(best: int) -> Tamper:
    """Tuning says that the weights after round `best` are perfect, and all others useless."""
    seen: dict[str, int] = {}

    def tamper(site: str, reply: Message) -> Message:
        kind = reply.metadata.message_type
        if kind != FINETUNE and (kind != SCORE or unpack(reply.content, EvaluateReply).split != "tuning"):
            return reply
        good = float(seen.setdefault(site, 0) == best)
        seen[site] += 1
        labels = np.array([0.0] * 10 + [1.0] * 10)
        cells = Cells.of(count_scores(labels, np.where(labels == good, 0.9, 0.1)))
        made = ScoreReport(n=20, positives=10, auroc=good, auprc=0.5, cells=cells)
        if kind == SCORE:
            return Message(
                pack(EvaluateReply(site=site, split="tuning", report=made)), reply_to=origin(reply)
            )
        record = unpack(reply.content, TrainReply).model_copy(update={"received": made})
        return Message(pack(record, unpack_weights(reply.content), record.stays), reply_to=origin(reply))

    return tamper
