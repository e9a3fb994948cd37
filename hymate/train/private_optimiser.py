"""Opacus' optimisers for the parameters of one phase, with noise under the site's key.

Each clips what `hymate.train.sample_gradients` left in `grad_sample`, adds up piece after piece of a batch
(`add`), and makes of the sum, once, the noised mean over the *expected* batch size, in `p.grad` (`finish`).
The wrapped optimiser takes the step itself.

What Opacus 1.6 does otherwise, and why it is not left so:

- its noise comes from torch's generator (`hymate.train.noise`);
- its adaptive clipping divides by the number of patients drawn, which is not public, loses count over the
  pieces of a batch, and adds noise for a count that changes by 1/2 to one that changes by 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from opacus.optimizers import (
    AdaClipDPOptimizer,
    DPOptimizer,
    DPOptimizerFastGradientClipping,
    DPPerLayerOptimizer,
)
from opacus.optimizers.utils import params
from torch import Tensor, nn

from hymate.privacy_config import Clipping
from hymate.train.noise import SecretNoise

QUANTILE, RATE = 0.5, 0.2  # of adaptive clipping: arXiv 1905.03871, section 3
BOUNDS = (1e-6, 1e6)
COUNT_SHARE = 1 / 20  # noise on the count of unclipped patients, over the batch size: the same, section 3.1


@dataclass(frozen=True)
class Mechanism:
    """What is done to a step's gradients."""

    noise_multiplier: float
    max_grad_norm: float = 1.0
    clipping: Clipping = "flat"


class PrivateOptimiser(DPOptimizer):  # type: ignore[misc]  # Opacus is untyped
    """What the four have in common: whose gradients, which noise, and one batch in pieces."""

    in_two_passes: ClassVar[bool] = False
    """Whether `p.grad` is to hold the sum of clipped gradients, instead of `p.grad_sample` all of them."""

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        parameters: Sequence[nn.Parameter],
        mechanism: Mechanism,
        expected: float,
    ) -> None:
        self.noise = SecretNoise(bytes(32))  # until the epoch's is given
        self._of_phase = list(parameters)
        wanted = {
            "noise_multiplier": mechanism.noise_multiplier,
            "expected_batch_size": expected,
            "max_grad_norm": mechanism.max_grad_norm,
        }
        super().__init__(optimiser, **{**wanted, **self._own_settings(optimiser, mechanism, expected)})
        self.max_grad_norm = mechanism.max_grad_norm  # of a whole gradient, whatever Opacus was given

    def _own_settings(
        self, optimiser: torch.optim.Optimizer, mechanism: Mechanism, expected: float
    ) -> dict[str, Any]:
        """What Opacus' optimiser of this kind wants beside, or otherwise."""
        return {}

    @property
    def params(self) -> list[nn.Parameter]:
        """Those the phase trains: the others get neither gradient nor noise, and AdamW leaves them alone."""
        return self._of_phase

    def add(self) -> None:
        """A piece of the batch is done: clip its gradients, add them up, forget them."""
        self.signal_skip_step()
        self.pre_step()
        self.zero_grad(set_to_none=True)

    def finish(self) -> None:
        """The batch is done, even one without a stay: the noised mean goes to `p.grad`."""
        self._prepare_nothing()
        self.signal_skip_step(do_skip=False)
        self.pre_step()

    def leave(self) -> None:
        """Take everything away again that Opacus keeps at parameters."""
        for parameter in self.params:
            for name in ("grad_sample", "summed_grad"):
                parameter.__dict__.pop(name, None)
            parameter.grad = None

    @property
    def deviation(self) -> float:
        """Of the noise on the sum of gradients."""
        return float(self.noise_multiplier * self.max_grad_norm)

    def clip_and_accumulate(self) -> None:
        if len(self.params[0].grad_sample):  # type: ignore[attr-defined]  # where Opacus has it
            super().clip_and_accumulate()
            return
        for p in self.params:
            if p.summed_grad is None:  # type: ignore[attr-defined]
                p.summed_grad = torch.zeros_like(p)  # type: ignore[attr-defined]

    def add_noise(self) -> None:
        sizes = [p.numel() for p in self.params]
        numbers = self.noise.normal(sum(sizes)) * self.deviation
        for p, noise in zip(self.params, torch.split(numbers, sizes), strict=True):
            summed: Tensor = p.summed_grad  # type: ignore[attr-defined]
            p.grad = (summed.double() + noise.to(p.device).view_as(p)).to(p.dtype)

    def _prepare_nothing(self) -> None:
        for p in self.params:
            p.grad_sample = p.new_zeros(0, *p.shape)  # type: ignore[attr-defined]


class FlatOptimiser(PrivateOptimiser):
    """A patient's whole gradient has norm `max_grad_norm` at most."""


class PerLayerOptimiser(PrivateOptimiser, DPPerLayerOptimizer):  # type: ignore[misc]
    """Each of K parameters' gradients has norm `max_grad_norm` / sqrt(K) at most, so all have the former."""

    def _own_settings(
        self, optimiser: torch.optim.Optimizer, mechanism: Mechanism, expected: float
    ) -> dict[str, Any]:
        # Opacus wants a norm for each of the optimiser's parameters, trained in this phase or not.
        share = mechanism.max_grad_norm / math.sqrt(len(self.params))
        return {"max_grad_norm": [share] * len(params(optimiser))}


class AdaptiveOptimiser(PrivateOptimiser, AdaClipDPOptimizer):  # type: ignore[misc]
    """The norm follows the median of the patients' norms: Andrew et al. 2021, algorithm 1, theorem 1.

    `noise_multiplier` is what both releases of a step cost together: the count's noise is b, and that of
    the gradients is (noise_multiplier^-2 - (2 b)^-2)^-1/2.
    """

    sample_size: int
    unclipped_num: Tensor | float
    max_grad_norm: float

    def _own_settings(
        self, optimiser: torch.optim.Optimizer, mechanism: Mechanism, expected: float
    ) -> dict[str, Any]:
        return {
            "target_unclipped_quantile": QUANTILE,
            "clipbound_learning_rate": RATE,
            "min_clipbound": BOUNDS[0],
            "max_clipbound": BOUNDS[1],
            "unclipped_num_std": max(COUNT_SHARE * expected, mechanism.noise_multiplier),
        }

    @property
    def deviation(self) -> float:
        if not self.noise_multiplier:
            return 0.0
        alone = self.noise_multiplier**-2 - (2 * self.unclipped_num_std) ** -2
        return float(alone**-0.5 * self.max_grad_norm)

    def zero_grad(self, set_to_none: bool = False) -> None:
        counts = self.sample_size, self.unclipped_num
        super().zero_grad(set_to_none)
        if self._is_last_step_skipped:
            self.sample_size, self.unclipped_num = counts

    def update_max_grad_norm(self) -> None:
        """Sum of (1 unclipped, 0 not) - 1/2: one patient more changes it by 1/2, whatever the batch."""
        noise = self.unclipped_num_std * float(self.noise.normal(1)) if self.noise_multiplier else 0.0
        centred = float(self.unclipped_num) - 0.5 * self.sample_size + noise
        share = centred / self.expected_batch_size + 0.5
        moved = self.max_grad_norm * math.exp(-RATE * (share - QUANTILE))
        self.max_grad_norm = min(max(moved, BOUNDS[0]), BOUNDS[1])


class GhostOptimiser(PrivateOptimiser, DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """A patient's whole gradient, as flat; the gradients themselves are never there."""

    in_two_passes = True

    def _prepare_nothing(self) -> None:
        for p in self.params:
            p.grad = torch.zeros_like(p)


KINDS: dict[Clipping, type[PrivateOptimiser]] = {
    "flat": FlatOptimiser,
    "per_layer": PerLayerOptimiser,
    "adaptive": AdaptiveOptimiser,
    "ghost": GhostOptimiser,
}
