"""The proximal step: weights pulled towards others, exactly and whatever the optimiser did before.

    prox(u) = argmin_w (lambda / 2) ||w - a||^2 + 1 / (2 rate) ||w - u||^2
            = u + rate * lambda / (1 + rate * lambda) * (a - u)

u: weights after the optimiser's step; a: the anchor; lambda: strength; rate: learning rate of u's
parameter group in that step. As a step of its own it needs no gradient, so clipping does not see it and
noise that is put on gradients does not replace it. A penalty in the loss has the same fixed points under
gradient descent: rate * grad F(w) = rate * lambda * (a - w).

Under AdamW the gradient's part of a step is normalised and the pull is not, as AdamW's weight decay is
not: lambda is then measured against moves of about one rate per step. With n steps from one anchor to the
next, the pull takes away about rate * lambda * n / 2 of the way gone, so strengths that do something are
near 1 / (rate * n): about 20 for 100 steps at a rate of 5e-4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from strategies.base import LocalRound, SiteHalf


def pull(
    model: nn.Module, anchor: Mapping[str, Tensor], strength: float, optimiser: torch.optim.Optimizer
) -> None:
    """The proximal step on every parameter of `model` that `anchor` names, at its own group's rate."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for group in optimiser.param_groups:
            force = float(group["lr"]) * strength
            for parameter in group["params"] if force else ():
                towards = anchor.get(name_of[id(parameter)])
                if towards is not None:
                    parameter.lerp_(towards, force / (1 + force))


class NearTheReceived(SiteHalf):
    """A proximal step towards the weights received after every step of the optimiser."""

    noised_only = True

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._received: Mapping[str, Tensor] = {}

    def begin(self, local: LocalRound) -> None:
        self._received = local.received

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        pull(model, self._received, self._strength, optimiser)
