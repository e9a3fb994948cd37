"""FedProx: sites stay near the weights they received (Li et al. 2020, arXiv 1812.06127).

Site i makes F_i(w) + (mu / 2) ||w - w_t||^2 small, from w_t on; the server takes the weighted mean.

    F_i   loss on site i's stays           w_t   shared weights received in round t
    mu    strength of the pull; 0: FedAvg, bit for bit

The paper has the penalty in the loss. Here it is a proximal step after each of the optimiser's
(`strategies.proximal`): the squared norm's exact one, with the rate of that step. For gradient descent
that has the same fixed point; under AdamW the pull is not normalised with the gradient, so mu is larger
than the paper's 0.001 ... 1 for the same effect. What is trained without a gradient in a phase never left
w_t, and layers that stay at the site are not pulled.

On quadratics F_i = h_i / 2 (w - o_i)^2, K steps of gradient descent at rate r, and shares p_i:
w* = sum p_i g_i o_i / sum p_i g_i, g_i = (1 - ((1 - r h_i) / (1 + r mu))^K) h_i / (h_i + mu).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from strategies.base import Algorithm, SiteHalf
from strategies.fedavg import FedAvg
from strategies.proximal import NearTheReceived


class FedProx(FedAvg):
    """FedAvg of sites that are held near the shared weights."""

    name = "fedprox"

    class Settings(Algorithm.Settings):
        mu: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 1.0
        """Strength of the pull towards the weights received."""

    settings: Settings

    def site_half(self) -> SiteHalf:
        return NearTheReceived(self.settings.mu)
