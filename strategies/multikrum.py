"""Multi-Krum: the mean of the m updates with the lowest scores of Krum.

Blanchard et al. 2017, arXiv 1703.02757:

    score as in `strategies.krum`
    w <- w + 1/m sum over the m sites of the lowest scores of Delta_i

Defined for n >= 2 f + 3 sites and m <= n - f - 2 (El Mhamdi, Guerraoui, Rouault 2019, arXiv 1905.04374),
which is also the default of m: more sites, less noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hymate.frozen import Count
from strategies.flower import built
from strategies.robust import Robust

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


class MultiKrum(Robust):
    """The mean of the updates in the densest crowd."""

    name = "multikrum"

    class Settings(Robust.Settings):
        selected: Count | None = None
        """m: how many updates are averaged; where it is not given, as many as may be: n - f - 2."""

    settings: Settings

    def fewest(self) -> int:
        f = self.settings.faulty
        return max(2 * f + 3, (self.settings.selected or 1) + f + 2)

    def strategy(self, sites: int) -> Strategy:
        f = self.settings.faulty
        selected = self.settings.selected or sites - f - 2
        return built("MultiKrum", {"num_malicious_nodes": f, "num_nodes_to_select": selected})
