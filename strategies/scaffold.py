"""SCAFFOLD: control variates take the sites' drift out (Karimireddy et al. 2020, arXiv 1910.06378).

    x     shared weights                     y     a site's weights on its way
    g     gradient of a step, as clipped     c_i   what site i's gradients were on average in its last
    c     sum_i p_i c_i                            round that counted; 0 before; stays at the site
    p_i   share of site i (`strategies.shares`); the paper has 1 / N: `weighting: uniform`
    K, r  steps of a round, their rate

    site      each step: g - c_i + c in place of g
              after K:   c_i+ = mean of g along the path; sends y and c_i+ - c_i
    server    x <- weighted mean of y,  c <- c + sum over the round's sites of p_i (c_i+ - c_i)

With equal weights the last line is the paper's c + |S| / N * mean (c_i+ - c_i), S the round's sites.

c_i+ is the paper's option II: with gradient descent y = x - r sum (g - c_i + c), so that
c_i - c + (x - y) / (K r) = mean g. The right-hand side needs no step size and no kind of optimiser, and
that is how it is taken here: under AdamW, (x - y) / (K r) is no gradient, and the mean of gradients still is
one. Where c_i are the gradients at x, every site's corrected gradient is c, that of the whole study:
all optimisers do what one with all the data would, and where it is 0 nothing moves (but for AdamW's weight
decay, which is the same everywhere).

One site alone: c = c_i, and the study is FedAvg's. A parameter without gradient in a step is left out of
that step's sums; one without any in a phase keeps its c_i. Layers that stay at the site have no control
variate. A round whose reply did not count leaves c_i as it was, at the site as in the server's sum.

Sent beside the weights, both ways: as much again as the weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from strategies.base import Algorithm, Arrays, Beside, LocalRound, Round, SiteHalf, Update
from strategies.fedavg import weighted_mean
from strategies.prefixed import prefixed, under
from strategies.shares import Shares

CONTROL = "control/"


class Scaffold(Algorithm):
    """FedAvg of sites whose gradients are corrected towards that of the whole study."""

    name = "scaffold"
    exact_updates = "its control variates are the gradients along the path to just these weights"

    def __init__(self, settings: Algorithm.Settings) -> None:
        super().__init__(settings)
        self._shares = Shares()
        self._control: Arrays = {}

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        rescaled = self._shares.meet(updates, round.sites)
        for name, array in current.items():
            control = np.asarray(self._control.get(name, np.zeros_like(array)), np.float64) * rescaled
            for update in updates:
                control += self._shares.of(update.site) * np.asarray(update.beside[name], np.float64)
            self._control[name] = control.astype(array.dtype)
        return weighted_mean(updates)

    def beside(self) -> Arrays:
        return dict(self._control)

    def beside_expected(self, current: Arrays) -> Arrays:
        return current

    def state(self) -> Arrays:
        return {**self._shares.state(), **prefixed(CONTROL, self._control)}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self._shares.restore(state)
        self._control = under(CONTROL, state)

    def site_half(self) -> SiteHalf:
        return Corrected()


class Corrected(SiteHalf):
    """Gradients corrected on their way to the optimiser, and summed as they were before."""

    noised_only = True

    def __init__(self) -> None:
        self._own: dict[str, Tensor] = {}
        self._correction: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._steps: Counter[str] = Counter()

    def begin(self, local: LocalRound) -> None:
        for name, received in local.received.items():
            nothing = torch.zeros_like(received)
            self._own[name] = local.memory.get(name, nothing)
            self._correction[name] = local.sent.get(name, nothing) - self._own[name]
            self._sums[name] = torch.zeros_like(received, dtype=torch.float64)

    def on_gradient(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is None or name not in self._correction:
                continue
            self._sums[name] += parameter.grad
            self._steps[name] += 1
            parameter.grad += self._correction[name]

    def finish(self, local: LocalRound) -> Beside:
        changes = {}
        for name, own in self._own.items():
            steps = self._steps[name]
            following = (self._sums[name] / steps).to(own.dtype) if steps else own
            changes[name] = following - own
            # By way of what is sent: the server's sum and the sites' own then agree to rounding.
            local.memory[name] = own + changes[name]
        return Beside(arrays=changes)
