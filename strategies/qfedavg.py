"""q-FedAvg: sites with a higher loss count more (Li et al. 2020, q-FFL, arXiv 1905.10497).

Minimises sum_k p_k F_k(w)^(q+1) / (q+1). Algorithm 2 of the paper, whose sites are drawn with chance p_k,
with the weights written out, Delta_k = x_k - w and L a Lipschitz constant of the gradients:

    D_k = F_k^q L Delta_k
    h_k = q F_k^(q-1) L^2 ||Delta_k||^2 + L F_k^q
    w <- w + sum_k p_k D_k / sum_k p_k h_k

q = 0 is FedAvg with the study's weighting; q -> infinity looks at the worst site alone (`afl` does that).

The Lipschitz constant. The paper takes L = 1 / local learning rate, since L Delta_k is the gradient after
one step of gradient descent. After an epoch of AdamW it is not: with L = 1 / 5e-4, and 1e5 weights that
moved by 1e-3 each, q L ||Delta||^2 / F is some hundreds, and the model stands still. So the default takes
it from the round: a function that is L-smooth and never negative has ||grad F||^2 <= 2 L F, hence
L ||Delta_k||^2 <= 2 F_k where Delta_k = grad F_k / L, and

    L = 2 sum_k p_k F_k / sum_k p_k ||Delta_k||^2

is the largest constant that the round as a whole allows. The step is then between 1 / (1 + 2q) and once
the weighted mean where sites are alike.

Losses are what the sites say they are: a site that exaggerates takes the study over. Where sites are not
trusted, take a robust algorithm instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from hymate.frozen import Positive
from strategies.base import Algorithm, Arrays, Round, SiteHalf, Update
from strategies.change import Change, Vector, change_of, mean_change, moved, shares, squared_length
from strategies.received_loss import LOSS, ReceivedLoss

LEAST_LOSS = 1e-10
"""In place of a loss of zero, of which no negative power exists."""


def smoothness(parts: Vector, losses: Vector, lengths: Vector) -> float:
    """L = 2 sum_k p_k F_k / sum_k p_k ||Delta_k||^2; any number where nothing moved.

    Args:
        lengths: ||Delta_k||^2.
    """
    travelled = float(np.sum(parts * lengths))
    return 2 * float(np.sum(parts * losses)) / travelled if travelled > 0 else 1.0


def fair_shares(parts: Vector, losses: Vector, lengths: Vector, q: float, lipschitz: float) -> Vector:
    """What each Delta_k is multiplied by: p_k F_k^q L / sum_j p_j h_j.

    Losses enter as F_k / max_j F_j, which changes nothing and keeps powers finite.
    """
    losses = np.maximum(losses, LEAST_LOSS)
    powers = (losses / losses.max()) ** q
    heights = powers * (1 + q * lipschitz * lengths / losses)
    return np.asarray(parts * powers / np.sum(parts * heights), np.float64)


class QFedAvg(Algorithm):
    """Fairness by loss: the more a site suffers, the more it counts."""

    name = "qfedavg"

    class Settings(Algorithm.Settings):
        q: Annotated[float, Field(ge=0.0)] = 1.0
        """How much a higher loss counts; 0 is FedAvg."""
        lipschitz: Positive | None = None
        """L; from the losses and lengths of each round where it is not given."""

    settings: Settings

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        changes: list[Change] = [change_of(update, current) for update in updates]
        parts = shares([update.weight for update in updates])
        losses = np.array([max(update.facts[LOSS], LEAST_LOSS) for update in updates])
        lengths = np.array([squared_length(change) for change in changes])
        lipschitz = self.settings.lipschitz or smoothness(parts, losses, lengths)
        return moved(
            current, mean_change(changes, fair_shares(parts, losses, lengths, self.settings.q, lipschitz))
        )

    def facts_expected(self) -> frozenset[str]:
        return frozenset({LOSS})

    def facts_needed(self) -> frozenset[str]:
        return frozenset({LOSS})

    def site_half(self) -> SiteHalf:
        return ReceivedLoss()
