"""When fine-tuning stops, and which epoch or round is kept."""

from __future__ import annotations

from collections.abc import Mapping


class EarlyStopping:
    """Keeps the best score seen and counts how long ago it was.

    >>> stopping = EarlyStopping(patience=2)
    >>> [stopping.update(score) for score in (0.7, 0.8, 0.75, 0.79)]
    [True, True, False, False]
    >>> stopping.exhausted
    True
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best: float | None = None
        self._since = 0

    @property
    def state(self) -> dict[str, float | int | None]:
        """What `restore` needs, as JSON holds it."""
        return {"best": self._best, "since": self._since}

    def restore(self, state: Mapping[str, float | int | None]) -> None:
        """Go on from `state`."""
        self._best = state["best"]
        self._since = int(state["since"] or 0)

    def update(self, score: float | None) -> bool:
        """True where these weights are the best so far (higher is better).

        None, a score that nobody could give, never ends training: the newest weights then count as best.
        """
        if score is None or self._best is None or score > self._best:
            self._best = score if score is not None else self._best
            self._since = 0
            return True
        self._since += 1
        return False

    @property
    def exhausted(self) -> bool:
        """True once `patience` scores in a row brought nothing better."""
        return self._since >= self._patience
