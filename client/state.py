"""What a site remembers between rounds: the optimiser's moments, on disk, by study, phase and round.

Every Flower message may run in a fresh process, so nothing is kept in memory. The state of a round
is written under that round's number; the one before stays until the next is complete, so a round
that is asked again starts from the same state as the first time.
"""

from __future__ import annotations

from pathlib import Path

import torch

from client.site import SiteConfig
from hymate.model.hymate import HyMaTE
from hymate.train.checkpoint import load_optimiser, save_optimiser


class OptimiserMemory:
    """Durable optimiser state of one phase of one study at one site."""

    def __init__(self, site: SiteConfig, study: str, phase: str) -> None:
        self._folder = site.state / study / phase

    def restore(self, model: HyMaTE, optimiser: torch.optim.Optimizer, server_round: int) -> bool:
        """Load what was left after the round before; False where the site has nothing from it."""
        path = self._path(server_round - 1)
        if server_round <= 1 or not path.is_file():
            return False
        load_optimiser(path, model, optimiser)
        return True

    def remember(self, model: HyMaTE, optimiser: torch.optim.Optimizer, server_round: int) -> None:
        """Write the state after this round, then forget rounds older than the one before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        save_optimiser(self._path(server_round), model, optimiser)
        for old in self._folder.glob("round-*"):
            if int(old.name.split("-")[1].split(".")[0]) < server_round - 1:
                old.unlink()

    def _path(self, server_round: int) -> Path:
        return self._folder / f"round-{server_round:05d}.safetensors"
