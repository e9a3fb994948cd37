"""How large each hospital is, and whether the cohort can be made at all."""

from __future__ import annotations

import math

from hymate.data.cohort.codes import MEASUREMENTS, RATES
from hymate.data.cohort.config import MOST_STAYS, MOST_TRIPLETS_A_HOSPITAL, SyntheticConfig
from hymate.data.cohort.streams import Stream, generator
from hymate.errors import InputFault

HOURS = 48
TAKEN = 0.92
"""Share of a round's codes that are in fact recorded."""

TRIPLETS_A_STAY = TAKEN * HOURS * sum(RATES[m.stream] for m in MEASUREMENTS)
"""What a patient of average severity has, where nothing is set."""


def stays_of(config: SyntheticConfig, k: int) -> int:
    """Stays of hospital k (1, 2, ...): from (seed, k) and the distribution, not from how many there are."""
    sizes = config.sizes
    if sizes.distribution == "list":
        return sizes.each[k - 1]
    if sizes.distribution == "equal":
        return config.stays
    if sizes.distribution == "zipf":
        drawn = config.stays * math.exp(-sizes.spread * math.log(k))
    else:
        drawn = config.stays * math.exp(sizes.spread * float(generator(config.seed, k, Stream.SIZE).normal()))
    return round(min(max(drawn, sizes.smallest), sizes.largest))


def expected_triplets(config: SyntheticConfig, k: int) -> float:
    """Roughly how many observations hospital k will hold."""
    asked = config.observations
    ordinary = TRIPLETS_A_STAY * asked.factor
    return stays_of(config, k) * ((1 - asked.long_share) * ordinary + asked.long_share * asked.long_count)


def require_feasible(config: SyntheticConfig) -> int:
    """Stays of the whole cohort.

    Raises:
        InputFault: the cohort, or one hospital of it, is larger than a machine can be expected to make.
    """
    total = sum(stays_of(config, k) for k in config.numbers())
    if total > MOST_STAYS:
        what = f"{total:,} stays in {config.hospitals} hospitals; at most {MOST_STAYS:,} are made"
        raise InputFault("synthetic cohort", what, "lower stays, hospitals or sizes.largest")
    for k in config.numbers():
        triplets = expected_triplets(config, k)
        if triplets > MOST_TRIPLETS_A_HOSPITAL:
            what = f"{config.name(k)} would hold {triplets:,.0f} triplets; {MOST_TRIPLETS_A_HOSPITAL:,} fit"
            raise InputFault("synthetic cohort", what, "lower stays or observations")
    return total
