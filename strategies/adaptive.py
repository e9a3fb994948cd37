"""Adaptive optimisers at the server: FedAdam, FedYogi, FedAdagrad (Reddi et al. 2021, arXiv 2003.00295).

Algorithm 2 of the paper; everything by coordinate:

    Delta = sum_i p_i (x_i - w)                       mean change of the round, p_i the sites' shares
    m <- beta_1 m + (1 - beta_1) Delta                m = 0 at first
    v <- v + Delta^2                                  FedAdagrad
    v <- v - (1 - beta_2) Delta^2 sign(v - Delta^2)   FedYogi
    v <- beta_2 v + (1 - beta_2) Delta^2              FedAdam
    w <- w + eta m / (sqrt(v) + tau)                  v = tau^2 at first

Nothing is corrected for bias, as in the paper. Flower 1.41 starts at v = 0, and its FedAdam multiplies
eta by sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)) in round t = 1, 2, ...

Defaults. What a coordinate moves in a round is eta times a number near one, whatever the sites sent: eta
is a length in the space of weights, to be measured against what local training moves them. With AdamW a
coordinate moves by at most the learning rate a step, 5e-4; over a round of some tens of steps, averaged
over the sites, by about 2e-3 (PhysioNet-2012, four ICU types, third round of fine-tuning: median 1.6e-3,
root mean square 2.6e-3; the weights' own median is 0.06). So eta is 2e-3 here, for a learning rate of
5e-4, and is to be changed with it; FedAdagrad, whose steps shrink like 1 / sqrt(t), starts at 6e-3.
Flower's eta = 0.1, made for SGD, moves every weight by more than it is large. tau is below the usual
change, 1e-4: with 1e-3 all coordinates would be scaled alike, and slowly, for v begins at tau^2.

The first rounds are slower than FedAvg's, for m begins at 0: FedAdam on that data, from random weights,
had a tuning AUROC of 0.64 after four rounds, FedAvg 0.73 (one seed).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hymate.frozen import Positive, Probability
from strategies.base import Algorithm, Arrays, Round, Update
from strategies.change import Change, Vector, change_of, kept, mean_change, moved, recalled, shares


def first_moment(m: Vector, delta: Vector, beta_1: float) -> Vector:
    """m <- beta_1 m + (1 - beta_1) Delta."""
    return beta_1 * m + (1 - beta_1) * delta


def adagrad_moment(v: Vector, delta: Vector) -> Vector:
    """v <- v + Delta^2."""
    return v + delta**2


def yogi_moment(v: Vector, delta: Vector, beta_2: float) -> Vector:
    """v <- v - (1 - beta_2) Delta^2 sign(v - Delta^2)."""
    return v - (1 - beta_2) * delta**2 * np.sign(v - delta**2)


def adam_moment(v: Vector, delta: Vector, beta_2: float) -> Vector:
    """v <- beta_2 v + (1 - beta_2) Delta^2."""
    return beta_2 * v + (1 - beta_2) * delta**2


def adaptive_step(m: Vector, v: Vector, eta: float, tau: float) -> Vector:
    """eta m / (sqrt(v) + tau)."""
    return eta * m / (np.sqrt(v) + tau)


class Adaptive(Algorithm):
    """What the three have in common; each says how its second moment is made."""

    of_the_mean = True

    class Settings(Algorithm.Settings):
        server_learning_rate: Positive = 2e-3
        """eta: about what a coordinate moves in a round."""
        beta_1: Probability = 0.9
        """How much of the mean change of earlier rounds is kept."""
        tau: Positive = 1e-4
        """Changes far below it are scaled like each other, those far above all to the same length."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._m: Change = {}
        self._v: Change = {}

    @abstractmethod
    def second_moment(self, v: Vector, delta: Vector) -> Vector:
        """v after a round whose mean change is `delta`."""

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        changes = [change_of(update, current) for update in updates]
        mean = mean_change(changes, shares([update.weight for update in updates]))
        eta, tau, zero = self.settings.server_learning_rate, self.settings.tau, np.zeros(())
        steps: Change = {}
        for name, delta in mean.items():
            m = first_moment(self._m.get(name, zero), delta, self.settings.beta_1)
            v = self.second_moment(self._v.get(name, np.full_like(delta, tau**2)), delta)
            self._m[name], self._v[name] = m, v
            steps[name] = adaptive_step(m, v, eta, tau)
        return moved(current, steps)

    def state(self) -> Arrays:
        return {**kept("m", self._m), **kept("v", self._v)}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._m, self._v = recalled("m", state), recalled("v", state)


class WithDecay(Adaptive):
    """Those whose second moment forgets."""

    class Settings(Adaptive.Settings):
        beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
        """How much of the mean square of earlier rounds is kept."""

    settings: Settings
