"""Poisson sampling by patient: who takes part in a noisy step, and with which stay.

In each step every subject is drawn by itself with the same probability q, so a step has any number of
stays, none among them. Of a subject that is drawn ONE usable stay takes part, drawn uniformly: whoever has
been in hospital ten times counts as much as who has been once. This is the sampling that the accountant
assumes (`hymate.privacy.spend.Spend`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hymate.data.store import TripletStore

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Subjects:
    """The subjects of some stays. n subjects."""

    rows: Ints
    """The stays, subject after subject."""
    first: Ints
    """Position in `rows` of each subject's first stay, (n,)."""
    count: Ints
    """Stays of each subject, (n,)."""

    @classmethod
    def of(cls, store: TripletStore, rows: Ints) -> Subjects:
        """The subjects of these stays of `store`."""
        order = np.argsort(store.subject_id[rows], kind="stable")
        _, first, count = np.unique(store.subject_id[rows][order], return_index=True, return_counts=True)
        return cls(rows[order], first, count)

    def __len__(self) -> int:
        return len(self.first)

    def draw(self, rate: float, rng: np.random.Generator) -> Ints:
        """Stays of one step, in the order of their subjects' numbers."""
        drawn = rng.random(len(self)) < rate
        which = (rng.random(len(self)) * self.count).astype(np.int64)
        chosen: Ints = self.rows[(self.first + which)[drawn]]
        return chosen


@dataclass(frozen=True)
class Sampling:
    """How often a phase's steps draw a subject. `steps` is of one epoch: as many as draw each subject
    `visits` times on average, and at least one."""

    subjects: int
    rate: float
    steps: int

    @classmethod
    def of(cls, subjects: int, batch_size: int, visits: int = 1) -> Sampling:
        """`batch_size` subjects a step are expected, or all where there are not more."""
        rate = min(1.0, batch_size / subjects) if subjects else 0.0
        return cls(subjects, rate, max(1, round(visits / rate)) if rate else 0)
