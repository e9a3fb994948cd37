"""Interpolation-prediction network: every variable smoothed at reference times, then a GRU over these.

Shukla, Marlin, "Interpolation-prediction networks for irregularly sampled time series", ICLR 2019,
section 3.2, equations 1 to 4 (https://openreview.net/pdf?id=r1efr3C9Ym).

    B, L, V, R     stays in the batch, padded length, codes, reference times
    r              (R,)        hours, evenly from 0 to the look-back, both included
    t, x           (B, L)      hours and z-score of every observation
    alpha          (V,)        softplus of a parameter: how fast a variable's weight falls
    w(r, t)                    exp(-alpha (r - t)^2)
    lambda         (B, R, V)   intensity: sum of w over the variable's observations          eq. 2
    sigma          (B, R, V)   smooth: sum of w x, divided by lambda                         eq. 1
    gamma          (B, R, V)   the same with KAPPA alpha: transients, near what was measured
    chi            (B, R, V)   sum_v' rho_vv' lambda_v' sigma_v' / sum_v' lambda_v'          eq. 3
    tau            (B, R, V)   gamma - chi                                                   eq. 4
    h              (B, d)      last hidden state of a GRU over [chi, lambda, tau]

A variable that was not observed has sigma = gamma = lambda = 0. Sums of exponentials are divided before
they can all round to zero (the paper's own code: logsumexp), so far from any observation sigma is the
nearest value. Departs from the paper: no second loss that rebuilds held-out observations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.baselines.baseline import Baseline
from hymate.model.dropout import Dropout

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import InterpNetConfig

KAPPA = 10.0
CACHED = 2**17  # numbers of a table that a core keeps near


class Smoothed(NamedTuple):
    """Of every variable at every reference time, (B, R, V) each; log_intensity is -inf where unobserved."""

    smooth: Tensor
    transient: Tensor
    log_intensity: Tensor


class Smoothing(nn.Module):
    """The first layer: each variable by itself (equations 1 and 2)."""

    def __init__(self, codes: int, points: int, lookback_hours: float) -> None:
        super().__init__()
        self.codes = codes
        self.points = points
        self.lookback_hours = lookback_hours
        self.kernel = nn.Parameter(torch.zeros(codes))

    def forward(self, batch: TripletBatch) -> Smoothed:
        """The batch's observations, smoothed."""
        padding = ~batch.mask
        stays, length = padding.shape
        code = batch.code.masked_fill(padding, 0)
        time = batch.time.masked_fill(padding, 0.0)
        value = batch.value.masked_fill(padding, 0.0)
        # On CPU a few stays at a time: what is as large as observations x points then stays in the cache.
        few = CACHED // (length * self.points + 1) + 1 if code.device.type == "cpu" else max(stays, 1)
        parts = zip(*(torch.split(field, few) for field in (code, time, value)), strict=True)
        smoothed = zip(*(self._smooth(*part) for part in parts), strict=True)
        return Smoothed(*(torch.cat(part) for part in smoothed))

    def _smooth(self, code: Tensor, time: Tensor, value: Tensor) -> Smoothed:
        """code, time, value (B, L), code 0 where padding is."""
        stays = code.shape[0]
        reference = torch.linspace(0.0, self.lookback_hours, self.points, device=time.device)
        squared = (time.flatten()[:, None] - reference).square()  # (B L, R)
        nearest = self._nearest(code, time, reference)  # (B (V + 1), R)
        observed = nearest.isfinite()

        # Rows of one stay and code belong to one cell; padding to cells of column 0, cut off below.
        cell = (torch.arange(stays, device=code.device)[:, None] * (self.codes + 1) + code).flatten()
        alpha = F.pad(F.softplus(self.kernel), (1, 0))  # (V + 1,)
        # Weights relative to that of the nearest observation: their sum is never zero.
        relative = (nearest[cell] - squared) * alpha[code].flatten()[:, None]

        def sums(weight: Tensor) -> tuple[Tensor, Tensor]:
            zero = weight.new_zeros(nearest.shape)
            return zero.index_add(0, cell, weight), zero.index_add(0, cell, weight * value.flatten()[:, None])

        total, weighted = sums(torch.exp(relative))
        sharp_total, sharp_weighted = sums(torch.exp(KAPPA * relative))
        log_total = torch.where(observed, torch.where(observed, total, 1.0).log(), -torch.inf)
        log_intensity = log_total - alpha.repeat(stays)[:, None] * torch.where(observed, nearest, 0.0)

        def arranged(x: Tensor) -> Tensor:
            return x.view(stays, self.codes + 1, self.points)[:, 1:].transpose(1, 2)

        return Smoothed(
            arranged(weighted / total.clamp(min=0.5)),  # the nearest alone counts 1
            arranged(sharp_weighted / sharp_total.clamp(min=0.5)),
            arranged(log_intensity),
        )

    def _nearest(self, code: Tensor, time: Tensor, reference: Tensor) -> Tensor:
        """Squared hours from every reference time to a code's nearest observation: (B (V + 1), R).

        Infinite where the stay has no observation of the code.
        """
        stays = code.shape[0]
        # One ascending line a stay, code after code, each as long as can be told apart.
        far = 4.0 * self.lookback_hours
        line = (code * far + time.double()).sort(dim=1).values
        line = F.pad(line, (1, 1), value=torch.inf)  # neighbours of the first and the last
        line[:, 0] = -torch.inf
        asked = torch.arange(self.codes + 1, device=code.device)[:, None] * far + reference.double()
        asked = asked.flatten().expand(stays, -1).contiguous()
        after = torch.searchsorted(line, asked).clamp(min=1)
        gap = torch.minimum(asked - line.gather(1, after - 1), line.gather(1, after) - asked)
        gap = torch.where(gap < 2.0 * self.lookback_hours, gap, torch.inf)  # beyond: another code's
        return gap.square().to(time.dtype).view(stays * (self.codes + 1), self.points)


class Mixing(nn.Module):
    """The second layer: variables inform each other where they were observed (equations 3 and 4)."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.correlation = nn.Parameter(torch.eye(codes))

    def forward(self, smoothed: Smoothed) -> Tensor:
        """-> (B, R, 3V): chi, lambda, tau."""
        lowest = torch.finfo(smoothed.smooth.dtype).min  # finite: a stay without observations stays finite
        share = smoothed.log_intensity.clamp(min=lowest).softmax(dim=-1)
        chi = F.linear(share * smoothed.smooth, self.correlation)
        return torch.cat([chi, smoothed.log_intensity.exp(), smoothed.transient - chi], dim=-1)


class InterpNet(Baseline):
    """Interpolation, then a GRU of one layer; its last hidden state is the stay."""

    can_forecast = False
    config: InterpNetConfig

    def __init__(
        self, config: InterpNetConfig, codes: int, static_width: int, time_scale_hours: float
    ) -> None:
        super().__init__(config, codes, static_width, config.d_model)
        self.smoothing = Smoothing(codes, config.reference_points, time_scale_hours)
        self.mixing = Mixing(codes)
        self.gru = nn.GRU(3 * codes, config.d_model, batch_first=True)
        self.dropout = Dropout(config.dropout)

    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, d)."""
        _, h = self.gru(self.mixing(self.smoothing(batch)))  # (1, B, d)
        last: Tensor = self.dropout(h[0])
        return last
