"""FedNova: sites count by their weight, not by how often they stepped (Wang et al. 2020, arXiv 2007.07481).

    d_i = (x_i - w) / tau_i            what site i moved in a step, of tau_i it took
    tau = sum_i p_i tau_i              steps of the round, p_i the sites' shares
    w <- w + tau sum_i p_i d_i         section 4, with ||a_i||_1 = tau_i

Under FedAvg a hospital with ten times the stays takes ten times the steps and so counts a hundred times:
the fixed point is that of other weights than the study's. With equal steps this is FedAvg.

tau_i is exact for plain gradient descent. With AdamW a step has about the same length whatever the
gradient, also from one round to the next (its moments are kept), so dividing by the number of steps
remains the right correction up to how much a site's steps cancel each other. Steps are what the sites
say they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strategies.base import Algorithm, Arrays, Round, Update
from strategies.change import Change, Vector, change_of, mean_change, moved, shares


def normalised_mean(changes: Sequence[Change], parts: Vector, steps: Sequence[int]) -> Change:
    """(sum_i p_i tau_i) sum_i p_i Delta_i / tau_i."""
    taken = np.asarray(steps, np.float64)
    effective = float(np.sum(parts * taken))
    return mean_change(changes, parts * effective / taken)


class FedNova(Algorithm):
    """FedAvg of what each site moved in one step."""

    name = "fednova"
    needs_raw = "the number of steps each site took, which tells how many patients it has"

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        changes = [change_of(update, current) for update in updates]
        parts = shares([update.weight for update in updates])
        return moved(current, normalised_mean(changes, parts, [max(update.steps, 1) for update in updates]))
