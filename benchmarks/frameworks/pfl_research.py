"""The work of `benchmarks.frameworks.work` under pfl-research's FedAvg: no messages.

PYTHON -m benchmarks.frameworks.pfl_research RUN ROUNDS THREADS

One process, or one of several that share the hospitals: pfl reads PFL_WORKER_ADDRESSES and PFL_WORKER_RANK.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.context import LocalResultMetaData
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

from benchmarks.frameworks.work import Work
from hymate.model.hymate import HyMaTE


class Learner(PyTorchModel):
    """HyMaTE whose local epochs are those of the other frameworks."""

    def __init__(self, work: Work, model: HyMaTE) -> None:
        self.work = work
        super().__init__(model, torch.optim.SGD, torch.optim.SGD(model.parameters(), lr=1.0))

    def do_multiple_epochs_of(
        self, user_dataset: Any, train_params: Any, train_step_fn: Any, **given: Any
    ) -> LocalResultMetaData:
        number = len(self.work.ended) + 1
        return LocalResultMetaData(
            self.work.do(self.pytorch_model, user_dataset.train_kwargs["store"], number)
        )


class Rounds(TrainingProcessCallback):
    """Notes when each round ended."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        self._work.round_ended()
        return False, Metrics()


def main() -> None:
    run, rounds, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    work = Work(run, threads)
    stores = [work.store(site) for site in range(len(work.sites))]
    model: Any = work.model()
    model.loss = lambda *given: None  # pfl asks for both, and this work uses neither
    model.metrics = lambda *given: {"users": Weighted(1, 1)}

    def dataset_of(site: int) -> Dataset:
        rows = np.flatnonzero(stores[site].split == 0)
        return Dataset(raw_data=[rows], user_id=str(site), train_kwargs={"store": stores[site]})

    data = FederatedDataset(
        dataset_of,
        get_user_sampler("minimize_reuse", list(range(len(stores)))),
        user_id_to_weight={site: len(store.code) for site, store in enumerate(stores)},
    )
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=10 * rounds,
            train_cohort_size=len(stores),
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()]),
        model=Learner(work, model),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=1e-3, local_batch_size=work.study.finetune.batch_size
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Rounds(work)],
    )
    work.tell()
