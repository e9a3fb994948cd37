"""Which of the study's sites train in a round (`participation.sample`).

Every round ranks the names of all sites anew, by a hash of the study's seed, phase, round and name; the
first so many train. A site's rank depends on nothing else: where one is away, or rests after failures,
the next one takes its place and nobody else's changes, and a study that goes on draws as it would have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from server.participation import ParticipationConfig


@dataclass(frozen=True)
class Draw:
    """Who is asked in one exchange, and how many must answer. Round 0, a one-off exchange, asks everyone."""

    rules: ParticipationConfig
    expected: int
    """Sites of the study."""
    phase: str
    number: int = 0
    seed: int = 0
    least: int = 1
    """Replies without which the algorithm is not defined."""

    @property
    def size(self) -> int:
        """Sites the exchange asks."""
        if not self.number:
            return self.expected
        return min(self.expected, max(self.rules.drawn(self.expected), self.least))

    @property
    def needed(self) -> int:
        """Usable replies that it needs: the quorum is of the sites drawn."""
        return max(self.rules.needed(self.size), self.least)

    @property
    def samples(self) -> bool:
        """Whether any site is left out."""
        return self.size < self.expected

    def enough(self, sites: Collection[str]) -> bool:
        """Whether usable replies of these sites are."""
        return len(sites) >= self.needed and set(self.rules.required) <= set(sites)

    def of(self, available: Iterable[str], answered: Collection[str] = ()) -> frozenset[str]:
        """Those of the sites available that are asked, where some have answered already.

        Required sites are always drawn; the others by rank.
        """
        if not self.samples:
            return frozenset(available)
        waiting = sorted(set(available) - set(answered), key=self._rank)
        required = [site for site in waiting if site in self.rules.required]
        others = [site for site in waiting if site not in self.rules.required]
        places = max(self.size - len(answered) - len(required), 0)
        return frozenset([*required, *others[:places]])

    def _rank(self, site: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{self.phase}/{self.number}/{site}".encode()).digest()
