"""The study's `secure_aggregation:` section: sites mask what they send; the coordinator sees sums alone."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hymate.frozen import Count, Frozen, Positive


class SecureAggregationConfig(Frozen):
    """Secure aggregation (Bonawitz et al. 2017, https://doi.org/10.1145/3133956.3133982): docs/privacy.md."""

    threshold: Annotated[float, Field(gt=0.5, le=1.0)] | Count
    """Sites of a round without which nothing is summed, and whose shares together open the sum: a share of
    the round's sites (0.75) or a number of them (3). Always more than half of them."""
    clipping_range: Positive = 1.0
    """How far a round may move any one weight: a site's change is clipped to this on both sides, entry by
    entry, in place of `participation.norm_factor`."""
    bits: Literal[16, 32, 64] = 32
    """Of each masked number of an update. Sites of equal weight lose at most `clipping_range` times their
    number over 2^(bits - 1) of each entry's mean: with 32 bits and 512 sites 2.4e-7 of the range."""
    histograms: bool = True
    """Whether evaluation is summed, too: then there are figures of all sites together and of no one site.
    false: updates alone are masked, and each site tells its figures as in any study."""

    @model_validator(mode="after")
    def _a_sum_is_of_several(self) -> SecureAggregationConfig:
        if isinstance(self.threshold, int) and self.threshold < 2:
            raise ValueError("threshold: a sum is of 2 sites at least; write 3, or a share such as 0.75")
        return self

    def needed(self, sites: int) -> int:
        """Shares that open a sum in which `sites` began; more than half of them, so that no two different
        sets of sites can be made to open it.

        >>> SecureAggregationConfig(threshold=0.75).needed(4), SecureAggregationConfig(threshold=2).needed(4)
        (3, 3)
        """
        asked = self.threshold
        if isinstance(asked, float):
            asked = math.ceil(asked * sites - 1e-9)
        return max(asked, sites // 2 + 1, 2)
