"""A round under a strategy, at the site: its own layers, its half of the algorithm, what it sends.

The order is fixed: own layers in, the algorithm's beginning, the epochs, the algorithm's end, own layers
out, compression. What is remembered of a round is written before its reply leaves the site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.agreed import vocabulary_path
from client.journal import Event, note
from client.site import SiteConfig
from client.state import OptimiserMemory, StrategyMemory
from hymate.config import FinetuneConfig, PretrainConfig
from hymate.data.store import TripletStore
from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE
from hymate.protocol import FinetuneRequest, GoingOn, PretrainRequest, RoundRequest
from hymate.scoring_protocol import EvaluateRequest
from hymate.train.loop import EpochResult, LocalHook, make_optimiser
from hymate.train.saved_model import MODEL, SavedModel, save_model
from strategies.arrays import Weights
from strategies.base import Algorithm, Arrays, LocalRound, SiteHalf
from strategies.compression import compressed
from strategies.local_layers import PREFIX, InTurn, local_names, put_local, taken_local
from strategies.prefixed import prefixed, under
from strategies.registry import make_algorithm
from strategies.wire import with_beside

if TYPE_CHECKING:  # Opacus is imported where a round takes noise
    from client.noise import NoisyRound

ALGORITHM = "algorithm/"
RESIDUAL = "residual/"
NORM = "norm/"
"""Before the names of what algorithm, compression and adaptive clipping remember; so have own layers."""

Phase = Literal["pretrain", "finetune"]
Train = Callable[[nn.Module, torch.optim.AdamW, LocalHook | None, int, int, str], EpochResult]
"""Model, optimiser, hook, first epoch (from 0), number of epochs and the name of what is trained."""


@dataclass
class Trained:
    """What a round came to."""

    result: EpochResult
    arrays: Arrays
    """What is sent: shared weights, compressed, and what the algorithm sends beside them."""
    facts: dict[str, float] = field(default_factory=dict)


class Strategist:
    """One round's strategy at one site, from the weights received to those that are sent."""

    def __init__(
        self, site: SiteConfig, request: PretrainRequest | FinetuneRequest, model: HyMaTE, beside: Weights
    ) -> None:
        self._site, self._request, self._model = site, request, model
        self._phase, self._config = phase_of(request)
        self._strategy = request.strategy
        self._algorithm = make_algorithm(self._strategy)
        self._state = model.state_dict()
        """The model's own tensors: what training changes is seen here."""
        self._local = local_names(self._strategy.local_layers, self._state)
        self._sent = {name: torch.from_numpy(np.array(array)) for name, array in beside.items()}
        self._memory = StrategyMemory(site, request.study, self._phase, request.run)
        self._remembered = self._memory.recall(request.folded)
        put_local(model, self._remembered or _layers_before(site, request, self._phase, self._local))

    @property
    def own_model(self) -> HyMaTE:
        """The model as the site uses it, before this round's training."""
        return _personal(self._algorithm, self._model, self._remembered)

    def train(
        self,
        train: Train,
        loss: Callable[[], float],
        store: TripletStore,
        score: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None,
        noise: NoisyRound | None = None,
    ) -> Trained:
        """This round: `train` runs its epochs on a model, `loss` and `score` measure the model of this round.

        `noise` is charged before the first step, and no algorithm is told then what the patients' loss is.
        Weights trained on a handful of stays say too much about them: below the site's minimum it refuses.
        """
        if len(store.rows("train")) < self._site.policy.min_cell:
            raise InputFault(
                f"site {self._site.name}",
                f"has fewer training stays than its minimum of {self._site.policy.min_cell}",
                "leave the site out of the study, or add stays",
            )
        model, request = self._model, self._request
        half = self._algorithm.site_half() or SiteHalf()
        hook: LocalHook = half
        if self._local and self._strategy.local_layers_first:
            hook = InTurn(self._local, self._strategy.local_layers_first, half)
        received = {
            name: tensor.detach().clone() for name, tensor in self._state.items() if name not in self._local
        }
        local = LocalRound(
            model=model,
            received=received,
            sent=self._sent,
            memory=under(ALGORITHM, self._remembered),
            train=lambda other, inner: self._epochs(other, inner, train, f"{self._phase}-own"),
            loss=loss,
            store=store,
            min_cell=self._site.policy.min_cell,
            score=score,
            phase=self._phase,
        )
        if noise is not None:
            local.loss, local.score = _covered, None
            noise.charge(
                under(NORM, self._remembered),
                _arrays(self._state),
                _arrays(self._sent),
                _arrays(self._remembered),
                *(_arrays(self._moments(name)) for name in (self._phase, f"{self._phase}-own")),
            )
        half.begin(local)
        result = self._epochs(model, hook, train, self._phase)
        local.steps = result.steps
        beside = half.finish(local)
        if noise is not None and beside.facts:
            _covered()
        trained = {name: self._state[name].numpy() for name in received}
        residual = {name: kept.numpy() for name, kept in under(RESIDUAL, self._remembered).items()}
        arrays, residual = compressed(
            self._strategy.compression,
            dict(trained),
            {name: tensor.numpy() for name, tensor in received.items()},
            residual,
            self._rounding(),
        )
        self._memory.remember(
            request.round,
            {
                **taken_local(model, self._local),
                **prefixed(ALGORITHM, local.memory),
                **{RESIDUAL + name: torch.from_numpy(np.asarray(kept)) for name, kept in residual.items()},
                **(prefixed(NORM, noise.norms) if noise is not None else {}),
            },
            folded=request.folded,
            best_round=request.best_round,
        )
        extra = {name: tensor.detach().numpy() for name, tensor in beside.arrays.items()}
        return Trained(result, with_beside(arrays, extra), dict(beside.facts))

    def _epochs(self, model: nn.Module, hook: LocalHook | None, train: Train, phase: str) -> EpochResult:
        """The epochs, between restoring and remembering the optimiser as the study wants it."""
        optimiser = make_optimiser(model, self._config)
        memory = OptimiserMemory(self._site, self._request.study, phase, self._request.run)
        keep = self._strategy.optimiser_state == "keep"
        if keep:
            memory.restore(model, optimiser, self._request.round)
        epochs = self._config.local_epochs
        done = train(model, optimiser, hook, (self._request.round - 1) * epochs, epochs, phase)
        if keep:
            memory.remember(model, optimiser, self._request.round)
        return done

    def _moments(self, phase: str) -> dict[str, Tensor]:
        """What the optimiser of this name goes on from."""
        if self._strategy.optimiser_state != "keep":
            return {}
        memory = OptimiserMemory(self._site, self._request.study, phase, self._request.run)
        return memory.recall(self._request.round)

    def _rounding(self) -> np.random.Generator:
        """Random numbers for this site, phase and round, the same where the round is asked again."""
        words = f"{self._site.name}/{self._phase}/{self._request.round}".encode()
        digest = hashlib.sha256(words).digest()
        return np.random.default_rng([self._request.seed, int.from_bytes(digest[:8], "big")])


def own_model(site: SiteConfig, request: EvaluateRequest, model: HyMaTE) -> HyMaTE:
    """The model the site would use after `request.round`; the model received, where it has no other."""
    if request.personal is None:
        return model
    memory = StrategyMemory(site, request.study, "finetune", request.run).recall(
        min(request.round, request.folded)
    )
    local = local_names(request.personal.local_layers, model.state_dict())
    put_local(model, memory or _layers_before(site, request, "finetune", local))
    return _personal(make_algorithm(request.personal), model, memory)


def keep_own_model(site: SiteConfig, request: EvaluateRequest, model: HyMaTE) -> None:
    """Leave the model that the study ends with for this site, which nobody else has, in its state folder."""
    vocabulary = Vocabulary.load(vocabulary_path(site, request.vocabulary_hash))
    folder = site.state / request.study / request.run / MODEL
    save_model(folder, SavedModel(request.study, model, request.model, request.task, vocabulary))
    note(site, Event.ANSWERED, f"this site's own model of study {request.study} lies in {folder}")


def phase_of(request: RoundRequest) -> tuple[Phase, PretrainConfig | FinetuneConfig]:
    """The name under which a phase's memory is kept, and its settings."""
    if isinstance(request, PretrainRequest):
        return "pretrain", request.pretrain
    assert isinstance(request, FinetuneRequest)  # there are two phases
    return "finetune", request.finetune


def _layers_before(
    site: SiteConfig, request: GoingOn, phase: str, local: frozenset[str]
) -> dict[str, Tensor]:
    """Own layers as pretraining left them: with these a site begins to fine-tune."""
    if phase != "finetune" or not local:
        return {}
    memory = StrategyMemory(site, request.study, "pretrain", request.run).recall(request.pretrained)
    return {name: layer for name, layer in memory.items() if name.removeprefix(PREFIX) in local}


def _personal(algorithm: Algorithm, model: HyMaTE, remembered: Mapping[str, Tensor]) -> HyMaTE:
    if not algorithm.personal:
        return model
    own = deepcopy(model)
    algorithm.personalise(own, under(ALGORITHM, remembered))
    return own


def _arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def _covered() -> float:
    raise InputFault(
        "strategy", "asks for figures of patients, which no noise covers", "take another algorithm"
    )
