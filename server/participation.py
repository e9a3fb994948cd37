"""Who must answer a round, how long it waits, and what happens to a site that keeps failing."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from hymate.config import Count, Frozen
from hymate.errors import InputFault

Positive = Annotated[float, Field(gt=0)]


def _share_or_number(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and value >= 1) and not (isinstance(value, float) and 0 < value <= 1):
        raise ValueError("write a share of the sites (0.5, 1.0: with a point) or a number of them (1, 2)")
    return value


OfSites = Annotated[int | float, BeforeValidator(_share_or_number)]


class ParticipationConfig(Frozen):
    """The study's `participation:` section."""

    quorum: OfSites = 1.0
    """Sites whose usable reply a round needs: a share of all the study's sites (1.0, 0.5: written with
    a point) or a number of sites (1, 2). With `sample`, of those drawn for the round."""
    sample: OfSites = 1.0
    """Sites that train in a round, drawn anew for each by the study's seed: a share of all (written with
    a point) or a number. `required` ones are always drawn. The vocabulary and all figures are of every
    site; fine-tuning then scores each round's weights by an exchange of its own."""
    required: tuple[str, ...] = ()
    """Names of sites that every round needs, whatever the quorum."""
    deadline_minutes: Positive = 60.0
    """How long a round waits for replies; one that comes later is written down and dropped."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a site that failed or refused is asked again before the deadline."""
    attempts: Count = 3
    """How often a round below quorum is tried; each try asks only the sites that have not answered."""
    pause_minutes: Annotated[float, Field(ge=0)] | None = None
    """Pause between two tries; it ends early when a site that was away is back. Default: 10, and none
    in a simulation."""
    give_up_after: Count = 3
    """A site that gave no usable reply in so many rounds running is no longer asked every round ..."""
    ask_again_every: Count = 5
    """... but only every so many rounds, or where the quorum cannot be met without it."""
    norm_factor: Annotated[float, Field(gt=1)] = 20.0
    """A site is quarantined for the round where its update moved the weights more than this many times
    as far, for the steps it took, as the median of the study's updates, or where what its algorithm sends
    beside them is so much longer; .inf: no such check."""

    @model_validator(mode="after")
    def _a_round_can_be_complete(self) -> ParticipationConfig:
        if isinstance(self.sample, int) and isinstance(self.quorum, int):
            drawn = max(self.sample, len(self.required))
            if self.quorum > drawn:
                raise ValueError(f"quorum is {self.quorum}, but a round draws {drawn} sites; lower it")
        return self

    def demand_enough(self, sites: int) -> None:
        """`InputFault` where a round needs more sites than there are."""
        drawn, remedy = self.drawn(sites), "lower it, or add sites"
        if self.sample > sites:
            raise InputFault("participation.sample", f"draws {self.sample} sites of {sites}", remedy)
        if self.needed(drawn) > drawn:
            whole = f"{drawn}" if drawn == sites else f"the {drawn} that a round draws"
            raise InputFault("participation.quorum", f"needs {self.needed(drawn)} sites of {whole}", remedy)

    def drawn(self, expected: int) -> int:
        """Sites that a round asks out of `expected`.

        >>> rules = ParticipationConfig(sample=0.5)
        >>> rules.drawn(4), rules.drawn(5), ParticipationConfig().drawn(5)
        (2, 3, 5)
        """
        sample = self.sample
        if isinstance(sample, float):
            sample = max(1, math.ceil(sample * expected - 1e-9))
        return min(expected, max(sample, len(self.required)))

    def needed(self, expected: int) -> int:
        """Sites a round needs out of `expected`.

        >>> ParticipationConfig(quorum=0.5).needed(5), ParticipationConfig(quorum=2).needed(5)
        (3, 2)
        """
        if isinstance(self.quorum, int):
            return self.quorum
        return max(1, math.ceil(self.quorum * expected - 1e-9))

    def among(self, sites: Collection[str]) -> ParticipationConfig:
        """The same rules for these sites alone: numbers that they cannot reach are lowered to what they can.

        >>> ParticipationConfig(quorum=4, required=("a", "b")).among(["b", "c", "d"]).quorum
        3
        """
        rules = self.model_copy(update={"required": tuple(name for name in self.required if name in sites)})
        if isinstance(self.sample, int):
            rules = rules.model_copy(update={"sample": min(self.sample, len(sites))})
        if isinstance(self.quorum, int):
            rules = rules.model_copy(update={"quorum": min(self.quorum, rules.drawn(len(sites)))})
        return rules

    def satisfied(self, sites: Collection[str], expected: int) -> bool:
        """Whether usable replies of these sites make a round."""
        return len(sites) >= self.needed(expected) and set(self.required) <= set(sites)
