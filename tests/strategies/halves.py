"""Both halves of an algorithm on problems whose answer is known: hospitals with a quadratic loss each.

What goes between server and site goes through the wire, what is remembered through files, as in a study.
Each hospital takes steps of plain gradient descent, so that closed forms hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hymate.protocol import TrainReply
from hymate.strategy_config import StrategyConfig
from hymate.train.checkpoint import load_arrays, save_arrays
from hymate.train.loop import EpochResult, LocalHook
from strategies.base import Algorithm, Arrays, LocalRound, Round, SiteHalf, Update
from strategies.registry import make_algorithm
from strategies.weighting import weight_of
from strategies.wire import apart, pack, unpack_weights, with_beside


class Point(nn.Module):
    """A model whose weights are one vector."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size, dtype=torch.float64))


class Three(nn.Module):
    """One shared part, one of another phase, one that stays at the site."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.ones(2))
        self.other_phase = nn.Parameter(torch.ones(2))
        self.own = nn.Parameter(torch.ones(2))


def round_of(model: nn.Module, **known: Any) -> LocalRound:
    """A round that nothing but `known` is known of: it trains nothing and has no stays."""
    nothing: dict[str, Any] = {
        "sent": {},
        "memory": {},
        "train": lambda model, hook: None,
        "loss": lambda: 0.0,
        "store": None,
        "min_cell": 1,
    }
    return LocalRound(model=model, **{**nothing, **known})


@dataclass
class Hospital:
    """Loss 1/2 sum_j curvature_j (w_j - optimum_j)^2; `stays` is its weight, `steps` those of a round."""

    name: str
    optimum: Sequence[float]
    curvature: Sequence[float] | float = 1.0
    stays: int = 10
    steps: int = 4
    store: Any = None
    score: Any = None
    """`LocalRound.score`"""
    memory: dict[str, Tensor] = field(default_factory=dict)

    def loss(self, model: nn.Module) -> Tensor:
        w = next(model.parameters())
        away = w - torch.tensor(self.optimum, dtype=w.dtype)
        return 0.5 * (torch.as_tensor(self.curvature, dtype=w.dtype) * away**2).sum()


class Halves:
    """A study of `hospitals` under one strategy; `weights` are the shared ones."""

    def __init__(
        self,
        strategy: dict[str, Any],
        hospitals: Sequence[Hospital],
        rate: float = 0.1,
        optimiser: Callable[[nn.Module, float], torch.optim.Optimizer] | None = None,
    ) -> None:
        self.strategy = StrategyConfig(**strategy)
        self.algorithm: Algorithm = make_algorithm(self.strategy)
        self.hospitals = list(hospitals)
        self.rate = rate
        self._optimiser = optimiser or (lambda model, rate: torch.optim.SGD(model.parameters(), lr=rate))
        self.weights: Arrays = {"w": np.zeros(len(self.hospitals[0].optimum))}
        self.number = 0
        self.updates: list[Update] = []

    @property
    def point(self) -> np.ndarray[Any, Any]:
        return np.asarray(self.weights["w"])

    def run(self, rounds: int, taking_part: Callable[[int], Sequence[int]] | None = None) -> Halves:
        """So many rounds; `taking_part` says which hospitals (by index) are in a round."""
        for _ in range(rounds):
            self.number += 1
            chosen = taking_part(self.number) if taking_part else range(len(self.hospitals))
            sent = unpack_weights(pack(_Nothing, with_beside(self.weights, self.algorithm.beside())))
            self.updates = [self.local(self.hospitals[index], *apart(sent)) for index in chosen]
            self.weights = self.algorithm.aggregate(
                Round(self.number, len(self.hospitals)), self.weights, self.updates
            )
        return self

    def local(self, hospital: Hospital, weights: Arrays, beside: Arrays) -> Update:
        """What one hospital makes of a round."""
        model = Point(len(hospital.optimum))
        model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in weights.items()})
        half = self.algorithm.site_half() or SiteHalf()
        local = LocalRound(
            model=model,
            received={name: x.detach().clone() for name, x in model.state_dict().items()},
            sent={name: torch.from_numpy(np.array(x)) for name, x in beside.items()},
            memory=dict(hospital.memory),
            train=lambda other, hook: self._train(hospital, other, hook),
            loss=lambda: float(hospital.loss(model).detach()),
            store=hospital.store,
            min_cell=5,
            score=hospital.score,
        )
        half.begin(local)
        local.steps = self._train(hospital, model, half).steps
        said = half.finish(local)
        hospital.memory = local.memory
        arrays = {name: x.detach().numpy().copy() for name, x in model.state_dict().items()}
        extra = {name: x.detach().numpy().copy() for name, x in said.arrays.items()}
        content = pack(_Nothing, with_beside(arrays, extra), hospital.stays)
        own, besides = apart(unpack_weights(content))
        weight = weight_of(self.strategy, hospital.name, hospital.stays, None)
        return Update(own, weight, hospital.name, local.steps, besides, dict(said.facts))

    def restart(self, folder: Path) -> Halves:
        """Everybody stops and goes on from files, in objects that know nothing else."""
        state = {name: torch.from_numpy(np.array(x)) for name, x in self.algorithm.state().items()}
        save_arrays(folder / "server.safetensors", state)
        self.algorithm = make_algorithm(self.strategy)
        self.algorithm.restore({k: v.numpy() for k, v in load_arrays(folder / "server.safetensors").items()})
        for hospital in self.hospitals:
            path = folder / f"{hospital.name}.safetensors"
            save_arrays(path, hospital.memory)
            hospital.memory = load_arrays(path)
        return self

    def _train(self, hospital: Hospital, model: nn.Module, hook: LocalHook | None) -> EpochResult:
        optimiser = self._optimiser(model, self.rate)
        for _ in range(hospital.steps):
            if hook is not None:
                hook.before_step(model)
            optimiser.zero_grad()
            hospital.loss(model).backward()  # type: ignore[no-untyped-call]
            if hook is not None:
                hook.on_gradient(model)
            optimiser.step()
            if hook is not None:
                hook.after_step(model, optimiser)
        if hook is not None:
            hook.after_epoch(model)
        return EpochResult(float(hospital.loss(model).detach()), hospital.stays, hospital.steps, 0.0)


_Nothing = TrainReply(site="a", stays=1, loss=0, steps=1, seconds=0)
