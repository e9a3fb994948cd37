"""What the robust algorithms have in common: `krum`, `multikrum`, `bulyan`, `trimmed_mean`, `median`.

Each is one of Flower's (`strategies.flower`), but

- it is handed what changed (x_i - w, in float64) in place of the weights. All five move along when every
  point is moved, so nothing but rounding differs: distances between sites do not drown in the length of
  the weights;
- every site counts once: how many stays it has is what the site says;
- with fewer updates than it is defined for, a round waits for more and at last the study ends, naming
  how many it needed. It never goes on with a mean that protects nobody.

`faulty` is the number f of sites that may send anything at all. What that is, is none of its business: a
hospital whose patients are unlike all others' is cut away as well.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from hymate.errors import InputFault
from strategies.base import Algorithm, Arrays, Round, Update
from strategies.change import change_of, moved
from strategies.flower import REPLACED, SPARSE, run_strategy

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


class Robust(Algorithm):
    """One of Flower's robust strategies on what the sites changed."""

    dense_updates = SPARSE
    weights_unused = REPLACED

    class Settings(Algorithm.Settings):
        faulty: Annotated[int, Field(ge=0)] = 1
        """f: so many sites may send anything."""

    settings: Settings

    @abstractmethod
    def strategy(self, sites: int) -> Strategy:
        """Flower's strategy for a round of so many sites."""

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        if len(updates) < self.fewest():
            raise InputFault(
                "strategy",
                f"{self.name} with these settings needs {self.fewest()} updates, and round {round.number} "
                f"has {len(updates)}",
                "let more sites take part, or expect fewer faulty ones",
            )
        here: Arrays = {name: np.zeros(array.shape, np.float64) for name, array in current.items()}
        changes = [
            Update(dict(change_of(update, current)), weight=1.0, site=update.site) for update in updates
        ]
        change = run_strategy(self.strategy(len(updates)), round.number, here, changes)
        return moved(current, {name: np.asarray(array, np.float64) for name, array in change.items()})
