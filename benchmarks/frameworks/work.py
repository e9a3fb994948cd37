"""What a hospital does in one round, for every framework alike: score its tuning stays, train one epoch."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from client.agreed import agreed_store
from client.evaluation import report_on
from client.site import Policy, load_site
from hymate.data.store import TripletStore
from hymate.data.vocabulary import Vocabulary
from hymate.model.hymate import HyMaTE, build_model
from hymate.ops.allocator import reuse_memory
from hymate.train.loop import finetune_epochs
from hymate.train.optimiser import make_optimiser
from server.study import StudyConfig, load_study

BALANCE = 4.0
POLICY = Policy(min_cell=1)


@dataclass
class Work:
    """The hospitals of a run of `hymate-simulate`, whose triplet stores it left."""

    run: Path
    threads: int = 1
    ended: list[float] = field(default_factory=list)
    """When each round ended, by `time.time` ..."""
    used: list[float] = field(default_factory=list)
    """... and the processor seconds of this process until then."""

    @cached_property
    def study(self) -> StudyConfig:
        return load_study(self.run / "study.yaml")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.run / "vocabulary.json")

    @cached_property
    def sites(self) -> list[Path]:
        """Site files, by name."""
        return sorted(self.run.glob("sites/*/site.yaml"))

    def store(self, site: int) -> TripletStore:
        return agreed_store(load_site(self.sites[site]), self.study.task, self.vocabulary.hash)

    def model(self) -> HyMaTE:
        study, vocabulary = self.study, self.vocabulary
        hours = study.task.lookback_hours
        return build_model(study.model, vocabulary.size, vocabulary.static_width, hours, study.seed)

    def do(self, model: nn.Module, store: TripletStore, server_round: int) -> int:
        """One site's round, with memory kept for reuse, as at a hospital; returns its training stays."""
        assert isinstance(model, HyMaTE)  # as frameworks hand it on
        torch.set_num_threads(self.threads)
        reuse_memory()
        report_on(model, store, "tuning", POLICY)
        config = self.study.finetune
        done = finetune_epochs(
            model,
            store,
            config,
            make_optimiser(model, config),
            positive_weight=BALANCE,
            seed=self.study.seed,
            first_epoch=server_round - 1,
            epochs=config.local_epochs,
        )
        return done.stays

    def round_ended(self) -> None:
        self.ended.append(time.time())
        self.used.append(time.process_time())

    def tell(self) -> None:
        """The measurements, as a line of JSON on standard output."""
        sys.stdout.write(json.dumps({"ended": self.ended, "used": self.used}) + "\n")
