"""FedDyn: every site's loss gets the study's minimum (Acar et al. 2021, arXiv 2111.04263).

    w_t    shared weights of round t         alpha   strength
    w_i    site i's after its round          g_i     site i's memory: the gradient of its loss at its last
    p_i    share of site i                           w_i; 0 before its first round
           (`strategies.shares`); paper: 1 / m       h = sum_i p_i g_i, over all sites, at the server

    site      makes F_i(w) - <g_i, w> + (alpha / 2) ||w - w_t||^2 small, from w_t on
              g_i <- g_i - alpha (w_i - w_t)
    server    h <- h - alpha sum over the round's sites of p_i (w_i - w_t)
              w_t+1 = weighted mean of w_i - h / alpha

At the local minimum grad F_i(w_i) = g_i - alpha (w_i - w_t), which is the new memory. Where nothing moves
any more, all w_i are w_t, each g_i is grad F_i(w_t), and their weighted sum h is 0: the minimum of the
whole study's loss, however different the sites are. A few steps in place of the minimum change the way
there, not the place.

Both terms are put on the gradient after clipping, not into the loss: g - g_i + alpha (w - w_t). The proximal
one is no step of its own here, as FedProx's is: under AdamW a step of its own is not normalised as
the gradient is, the local minimum would be at grad F_i - g_i = -alpha D^-1 (w - w_t), D AdamW's diagonal, and
the memory no gradient. On the gradient all three are in the same units, and at the local minimum the
equation above holds under any optimiser.

alpha small against the losses' curvature and few steps make the way to the minimum swing: h / alpha is all
that the sites have moved so far.

Nothing is sent beside the weights: the server knows w_i - w_t. A site's memory, as large as the weights,
stays with it; a round whose reply did not count leaves it, and h, as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from strategies.base import Algorithm, Arrays, Beside, LocalRound, Round, SiteHalf, Update
from strategies.fedavg import weighted_mean
from strategies.prefixed import prefixed, under
from strategies.shares import Shares

GRADIENT = "gradient/"


class FedDyn(Algorithm):
    """FedAvg of dynamically regularised sites, corrected by the sum of their gradients."""

    name = "feddyn"
    exact_updates = "the server follows every site's gradient memory by its weights"

    class Settings(Algorithm.Settings):
        alpha: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.1
        """Strength of the regulariser."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._shares = Shares()
        self._gradient: Arrays = {}

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        rescaled, alpha = self._shares.meet(updates, round.sites), self.settings.alpha
        mean = weighted_mean(updates)
        for name, array in current.items():
            start = np.asarray(array, np.float64)
            gradient = np.asarray(self._gradient.get(name, np.zeros_like(start)), np.float64) * rescaled
            for update in updates:
                moved = np.asarray(update.arrays[name], np.float64) - start
                gradient -= alpha * self._shares.of(update.site) * moved
            self._gradient[name] = gradient
            mean[name] = (np.asarray(mean[name], np.float64) - gradient / alpha).astype(array.dtype)
        return mean

    def state(self) -> Arrays:
        return {**self._shares.state(), **prefixed(GRADIENT, self._gradient)}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._shares.restore(state)
        self._gradient = under(GRADIENT, state)

    def site_half(self) -> SiteHalf:
        return Regularised(self.settings.alpha)


class Regularised(SiteHalf):
    """The linear and the proximal term, on the gradient."""

    noised_only = True

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._received: Mapping[str, Tensor] = {}
        self._linear: dict[str, Tensor] = {}

    def begin(self, local: LocalRound) -> None:
        self._received = local.received
        for name, received in local.received.items():
            remembered = local.memory.get(name, torch.zeros_like(received, dtype=torch.float64))
            self._linear[name] = remembered.to(received.dtype)

    def on_gradient(self, model: nn.Module) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.grad is None or name not in self._linear:
                    continue
                moved = parameter - self._received[name]
                parameter.grad += self._alpha * moved - self._linear[name]

    def finish(self, local: LocalRound) -> Beside:
        ended = local.model.state_dict()
        for name, received in local.received.items():
            remembered = local.memory.get(name, torch.zeros_like(received, dtype=torch.float64))
            moved = ended[name].detach().double() - received.double()
            local.memory[name] = remembered - self._alpha * moved
        return Beside()
