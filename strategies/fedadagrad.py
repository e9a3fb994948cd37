"""FedAdagrad: Adagrad at the server (Reddi et al. 2021, arXiv 2003.00295): see `strategies.adaptive`."""

from __future__ import annotations

from hymate.frozen import Positive, Probability
from strategies.adaptive import Adaptive, adagrad_moment
from strategies.change import Vector


class FedAdagrad(Adaptive):
    """Steps that become shorter, like one over the root of the rounds, where coordinates keep moving."""

    name = "fedadagrad"

    class Settings(Adaptive.Settings):
        server_learning_rate: Positive = 6e-3
        """eta: about what a coordinate moves in the first round."""
        beta_1: Probability = 0.0
        """How much of the mean change of earlier rounds is kept; the paper's FedAdagrad keeps none."""

    def second_moment(self, v: Vector, delta: Vector) -> Vector:
        return adagrad_moment(v, delta)
