"""What a site remembers between rounds: the optimiser's moments, on disk, by study, run, phase and round.

Every Flower message may run in a fresh process, so nothing is kept in memory. The state of a round
is written under that round's number; those before stay for a while, so a round that is asked again
(the coordinator was restarted, or went back one round because its last checkpoint was damaged) starts
from the same state as the first time.
"""

from __future__ import annotations

from pathlib import Path

import torch

from client.site import SiteConfig
from hymate.model.hymate import HyMaTE
from hymate.train.checkpoint import load_optimiser, save_optimiser

KEPT_ROUNDS = 4
"""The round under way, the two the coordinator may go back to, and the one before those."""


class OptimiserMemory:
    """Durable optimiser state of one phase of one run of a study at one site."""

    def __init__(self, site: SiteConfig, study: str, phase: str, run: str = "") -> None:
        self._folder = site.state / study / run / phase

    def restore(self, model: HyMaTE, optimiser: torch.optim.Optimizer, server_round: int) -> bool:
        """Load what was left after the latest round before this one that the site took part in.

        False where the site has nothing from it: then it starts with fresh moments.
        """
        earlier = [number for number in self._rounds() if number < server_round]
        if not earlier:
            return False
        load_optimiser(self._path(max(earlier)), model, optimiser)
        return True

    def remember(self, model: HyMaTE, optimiser: torch.optim.Optimizer, server_round: int) -> None:
        """Write the state after this round, then forget all but the last few before it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        save_optimiser(self._path(server_round), model, optimiser)
        for number in [number for number in self._rounds() if number <= server_round][:-KEPT_ROUNDS]:
            self._path(number).unlink()

    def _rounds(self) -> list[int]:
        return sorted(
            int(path.stem.removeprefix("round-")) for path in self._folder.glob("round-*.safetensors")
        )

    def _path(self, server_round: int) -> Path:
        return self._folder / f"round-{server_round:05d}.safetensors"
