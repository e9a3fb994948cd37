"""The running mean of the weights: what is evaluated and kept where a phase has `ema`.

Polyak and Juditsky 1992; with a decay, as usual since: mean <- d mean + (1 - d) weights after every step,
d = min(ema, (1 + n) / (10 + n)) after n steps, so that the first weights are soon forgotten.

Central training only. In a federation a site sends the weights it ends with; a mean over the rounds would
be the coordinator's to make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Mean of a model's weights over the steps of one phase."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = _copied(model)

    def update(self, model: nn.Module) -> None:
        """A step is done."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = model.state_dict()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.weights.values()), [state[n] for n in self.weights], 1.0 - decay)

    def restore(self, weights: Mapping[str, Tensor], steps: int) -> None:
        """Go on from a mean that was kept."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])
        self.steps = steps


@contextmanager
def averaged(model: nn.Module, average: Average | None) -> Iterator[None]:
    """Within, the model has the mean's weights; afterwards its own again."""
    if average is None:
        yield
        return
    own = _copied(model)
    model.load_state_dict(average.weights)
    try:
        yield
    finally:
        model.load_state_dict(own)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
