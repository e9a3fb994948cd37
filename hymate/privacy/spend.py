"""What some noisy steps cost: the four numbers that an accountant needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

SAMPLED_GAUSSIAN = "sampled gaussian"


@dataclass(frozen=True)
class Spend:
    """Steps of one mechanism, all with the same rate and noise.

    The sampled Gaussian mechanism (Abadi et al. 2016, section 3.1, https://arxiv.org/abs/1607.00133; Mironov
    et al. 2019, https://arxiv.org/abs/1908.10530): each patient takes part in a step with probability
    `sampling_rate`, independently of all others (Poisson); what a patient adds has norm C at most; to the
    sum normal noise of standard deviation `noise_multiplier` * C is added. Data sets are neighbours when
    one holds one patient more. A rate of 1 is the plain Gaussian mechanism.

    Raises:
        ValueError: a mechanism without an accountant, or a number that none can be given.
    """

    mechanism: str
    sampling_rate: float
    """Probability that a patient is drawn; 0 to 1."""
    noise_multiplier: float
    """Standard deviation of the noise over the clipping norm; 0 is no privacy at all."""
    steps: int

    def __post_init__(self) -> None:
        if self.mechanism != SAMPLED_GAUSSIAN:
            raise ValueError(f"no accountant for the mechanism {self.mechanism!r}")
        if not 0.0 <= self.sampling_rate <= 1.0:
            raise ValueError(f"a sampling rate is between 0 and 1, not {self.sampling_rate}")
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0.0):
            raise ValueError(f"a noise multiplier is finite and not negative, not {self.noise_multiplier}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"steps are a whole number and not negative, not {self.steps!r}")
