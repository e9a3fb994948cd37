"""Updates made smaller before they leave a site: composable steps, each with its way back.

    compression: [delta, {name: top_k, share: 0.1}, int8]

The site applies the steps in their order, the coordinator undoes them in the opposite one. What a step
could not send (`top_k` with error feedback) the site remembers until the next round that counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hymate.strategy_config import Compressor, Delta
from strategies.base import Arrays


def demand_order(steps: Sequence[Compressor], source: str) -> None:
    """Raise `InputFault` where the steps cannot follow each other."""


def loses(steps: Sequence[Compressor]) -> bool:
    """Whether what arrives differs from what was sent by more than rounding."""
    return any(not isinstance(step, Delta) for step in steps)


def compressed(
    steps: Sequence[Compressor],
    arrays: Arrays,
    reference: Arrays,
    residual: Arrays,
    rng: np.random.Generator,
) -> tuple[Arrays, Arrays]:
    """What is sent in place of `arrays`, and what is still to be sent (the next `residual`).

    Args:
        reference: the weights received, with the keys and shapes of `arrays`.
        residual: what the rounds before could not send; empty at first.
    """
    return arrays, {}


def restored(steps: Sequence[Compressor], sent: Arrays, reference: Arrays) -> Arrays:
    """The weights that `compressed` was given, as near as its steps leave them.

    Raises:
        InputFault: `sent` is not what these steps make of arrays like `reference`.
    """
    return sent
