"""Random numbers that a switch draws for itself, so that it disturbs nobody else's.

Everything that every cohort has comes from the generator of (seed, k) in a fixed order. A switch
takes another generator, of (seed, k, its own number): turned on or off, all other draws stay.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Who draws. Values are part of a cohort's identity: append, never renumber."""

    SIZE = 1
    CASE_MIX = 2
    BASE_RATE = 3
    CONCEPT = 4
    COVERAGE = 5
    UNITS = 6
    CLOCK = 7
    DUPLICATES = 8
    SEVERE_MISSING = 9
    GROUP_MISSING = 10
    LABEL_BIAS = 11
    OUTCOME = 12
    DEMOGRAPHICS = 13
    INTENSITY = 14
    EXTRA_ROUNDS = 15
    MARKER = 16
    DECOYS = 17
    OBSERVER = 18


def generator(seed: int, k: int, stream: Stream | None = None, part: int = 0) -> np.random.Generator:
    """Hospital k's generator: the common one, or that of a switch (and of its part: a code, a task)."""
    return np.random.default_rng([seed, k] if stream is None else [seed, k, int(stream), part])
