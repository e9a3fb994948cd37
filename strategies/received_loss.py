"""The site's half of algorithms that ask how well the shared model does at a site: q-FedAvg, AFL."""

from __future__ import annotations

from strategies.base import Beside, LocalRound, SiteHalf

LOSS = "loss"


class ReceivedLoss(SiteHalf):
    """Sends F_k(w): the mean loss over the training stays of the weights as they were received."""

    def __init__(self) -> None:
        self._loss = 0.0

    def begin(self, local: LocalRound) -> None:
        self._loss = local.loss()

    def finish(self, local: LocalRound) -> Beside:
        return Beside(facts={LOSS: self._loss})
