"""FedAdam: Adam at the server (Reddi et al. 2021, arXiv 2003.00295): see `strategies.adaptive`."""

from __future__ import annotations

from strategies.adaptive import WithDecay, adam_moment
from strategies.change import Vector


class FedAdam(WithDecay):
    """Steps whose length is about the same in every coordinate, however much the sites moved it."""

    name = "fedadam"

    def second_moment(self, v: Vector, delta: Vector) -> Vector:
        return adam_moment(v, delta, self.settings.beta_2)
