"""FedYogi: Yogi at the server (Reddi et al. 2021, arXiv 2003.00295): see `strategies.adaptive`."""

from __future__ import annotations

from strategies.adaptive import WithDecay, yogi_moment
from strategies.change import Vector


class FedYogi(WithDecay):
    """As FedAdam, but the second moment moves by at most (1 - beta_2) Delta^2 a round: it never jumps."""

    name = "fedyogi"

    def second_moment(self, v: Vector, delta: Vector) -> Vector:
        return yogi_moment(v, delta, self.settings.beta_2)
