"""What a site remembers between rounds, on disk, by study, run, phase and round: the optimiser's moments,
and what its half of the strategy keeps.

Every Flower message may run in a fresh process, so nothing is kept in memory. The state of a round
is written under that round's number; those before stay for a while, so a round that is asked again
(the coordinator was restarted, or went back one round because its last checkpoint was damaged) starts
from the same state as the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from client.site import SiteConfig
from hymate.train.checkpoint import load_arrays, load_optimiser, save_arrays, save_optimiser

KEPT_ROUNDS = 4
"""The round under way, the two the coordinator may go back to, and the one before those."""


class OptimiserMemory:
    """Durable optimiser state of one phase of one run of a study at one site."""

    def __init__(self, site: SiteConfig, study: str, phase: str, run: str = "") -> None:
        self._folder = site.state / study / run / phase

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer, server_round: int) -> bool:
        """Load what was left after the latest round before this one that the site took part in.

        False where the site has nothing from it: then it starts with fresh moments.
        """
        earlier = [number for number in self._rounds() if number < server_round]
        if not earlier:
            return False
        load_optimiser(self._path(max(earlier)), model, optimiser)
        return True

    def recall(self, server_round: int) -> dict[str, Tensor]:
        """What `restore` would load, as arrays; empty where there is nothing."""
        earlier = [number for number in self._rounds() if number < server_round]
        return load_arrays(self._path(max(earlier))) if earlier else {}

    def remember(self, model: nn.Module, optimiser: torch.optim.Optimizer, server_round: int) -> None:
        """Write the state after this round, then forget all but the last few before it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        save_optimiser(self._path(server_round), model, optimiser)
        for number in [number for number in self._rounds() if number <= server_round][:-KEPT_ROUNDS]:
            self._path(number).unlink()

    def _rounds(self) -> list[int]:
        return _numbers(self._folder, "round")

    def _path(self, server_round: int) -> Path:
        return _file(self._folder, "round", server_round)


class StrategyMemory:
    """What the site's half of a strategy, its own layers among it, keeps between the rounds of a phase.

    The site goes on from the last round that *counted*, which the coordinator names: what it learned in a
    round whose reply came too late, or was refused, it takes back, as the coordinator did.
    """

    def __init__(self, site: SiteConfig, study: str, phase: str, run: str = "") -> None:
        self._folder = site.state / study / run / phase

    def recall(self, server_round: int) -> dict[str, Tensor]:
        """What was kept after this round, or the latest before it that there is; empty without one."""
        earlier = [number for number in _numbers(self._folder, "strategy") if number <= server_round]
        return load_arrays(_file(self._folder, "strategy", max(earlier))) if earlier else {}

    def remember(
        self, server_round: int, arrays: Mapping[str, Tensor], *, folded: int, best_round: int
    ) -> None:
        """Keep `arrays` of this round, which went on from `folded`.

        What lies between did not count, and is forgotten: nobody may take it for the state of a later
        round. So are rounds before the last few, but for `best_round` or the one that stands for it.
        """
        earlier = [number for number in _numbers(self._folder, "strategy") if number < server_round]
        if not arrays and not earlier:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        save_arrays(_file(self._folder, "strategy", server_round), arrays)
        counted = [number for number in earlier if number <= folded]
        kept = {*counted[1 - KEPT_ROUNDS :], *[n for n in counted if n <= best_round][-1:]}
        for number in set(earlier) - kept:
            _file(self._folder, "strategy", number).unlink()


def _numbers(folder: Path, kind: str) -> list[int]:
    """Rounds of which there is a file of this kind."""
    return sorted(int(path.stem.removeprefix(f"{kind}-")) for path in folder.glob(f"{kind}-*.safetensors"))


def _file(folder: Path, kind: str, server_round: int) -> Path:
    return folder / f"{kind}-{server_round:05d}.safetensors"
