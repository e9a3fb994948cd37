"""Central differential privacy: the mean of the sites' updates, clipped and noised by the coordinator.

McMahan et al. 2018 (https://arxiv.org/abs/1710.06963) with a fixed norm, Andrew et al. 2021
(https://arxiv.org/abs/1905.03871) with one that follows a quantile; as Flower's
`DifferentialPrivacyServerSideFixedClipping` and `...AdaptiveClipping`, whose clipping is used here. Flower's
noise is not: it comes from numpy's global generator and is added in the weights' own 32 bits.

The unit is the site. Two runs are neighbours when they differ in whether one site's updates are there or are
zero; which sites took part in a round is no secret. A round's sum then changes by the clipping norm at most,
so each round is a Gaussian mechanism for every site in it, and costs the others nothing. That a round draws
some of the sites makes epsilon no smaller: who is drawn follows from the study's seed, which all know.

    u_i     update of site i, m of them                C     clipping norm
    z       noise multiplier of a round                z_u   of the updates: z, or less noise's share for b
    mean    (sum_i min(1, C / |u_i|) u_i + N(0, (z_u C)^2)) / m
    b       (sum_i (1[|u_i| <= C] - 1/2) + N(0, s^2)) / m + 1/2       z_u = (z^-2 - (2 s)^-2)^-1/2
    C       C exp(-RATE (b - quantile))
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flwr.supercore.differential_privacy import clip_inputs_inplace, compute_adaptive_noise_params, get_norm
from numpy.typing import NDArray

from hymate.privacy.accounting import noise_for
from hymate.privacy_config import CentralPrivacyConfig
from hymate.train.noise import KEY_BYTES, SecretNoise
from strategies.base import Algorithm, Arrays, Round, SiteHalf, Update
from strategies.change import Change, change_of, mean_change, moved

RATE = 0.2
"""How fast the norm follows: Andrew et al., section 3."""
COUNT_SHARE = 1 / 20
"""Noise on the number of unclipped updates, over the number of sites: the same, section 3.1; never less than
the round's own."""
NORM = "central/norm"


def multiplier_of(privacy: CentralPrivacyConfig, rounds: int) -> float:
    """The noise multiplier of a round, for sites that take part in all of `rounds`."""
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    assert privacy.target_epsilon is not None  # that or a multiplier
    return noise_for(privacy.target_epsilon, privacy.delta, [(1.0, rounds)])


class CentralNoise(Algorithm):
    """An algorithm that is told the noised mean in place of the sites' updates (`Algorithm.of_the_mean`)."""

    name = "central noise"

    def __init__(
        self,
        inner: Algorithm,
        privacy: CentralPrivacyConfig,
        multiplier: float,
        *,
        noised: Callable[[str], None],
        key: Callable[[], bytes] = lambda: secrets.token_bytes(KEY_BYTES),
    ) -> None:
        """
        Args:
            noised: told of every site whose update was made part of a noised mean.
            key: of a round's noise. Its weights leave only after the round is in the checkpoint, so a round
                that is repeated after a crash may have other noise.
        """
        super().__init__(inner.settings)
        self._inner, self._privacy, self._multiplier = inner, privacy, multiplier
        self._noised, self._key = noised, key
        self.norm = privacy.clipping_norm

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        changes = [change_of(update, current) for update in updates]
        unclipped = sum(get_norm(list(change.values())) <= self.norm for change in changes)
        for change in changes:
            _clip(change, self.norm)
        count = len(updates)
        mean = mean_change(changes, [1.0 / count] * count)
        noise = SecretNoise(self._key())
        multiplier, of_count = self._multiplier, 0.0
        if self._privacy.clipping == "adaptive":
            of_count = max(COUNT_SHARE * count, multiplier)
            of_count, multiplier = compute_adaptive_noise_params(multiplier, count, of_count)
        for name, part in mean.items():
            drawn = noise.normal(part.size).numpy().reshape(part.shape)
            mean[name] = part + drawn * (multiplier * self.norm / count)
        if self._privacy.clipping == "adaptive":
            told = unclipped - count / 2 + of_count * float(noise.normal(1))
            self.norm *= math.exp(-RATE * (told / count + 0.5 - self._privacy.quantile))
        for update in updates:
            self._noised(update.site)
        return self._inner.aggregate(round, current, [Update(moved(current, mean), weight=1.0)])

    def state(self) -> Arrays:
        return {**self._inner.state(), NORM: np.array(self.norm)}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self.norm = float(np.asarray(state[NORM], np.float64))
        self._inner.restore({name: array for name, array in state.items() if name != NORM})

    def site_half(self) -> SiteHalf | None:
        return self._inner.site_half()


def _clip(change: Change, norm: float) -> None:
    """Scale the whole change down to `norm`, in place; one of zeros has nothing to scale."""
    arrays = list(change.values())
    if get_norm(arrays) > norm:
        clip_inputs_inplace(arrays, norm)
