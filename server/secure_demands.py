"""What a study with `secure_aggregation:` cannot have, for it needs single sites' updates or figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hymate.privacy_config import CentralPrivacyConfig
from hymate.secure_config import SecureAggregationConfig

if TYPE_CHECKING:
    from server.study import StudyConfig


def demand_sums_suffice(config: SecureAggregationConfig, study: StudyConfig) -> None:
    """`ValueError` for what a sum cannot give."""
    if isinstance(study.privacy, CentralPrivacyConfig):
        raise ValueError(
            "privacy.mode central clips single updates at the coordinator, which secure_aggregation hides; "
            "take dp-sgd, or leave secure_aggregation out"
        )
    if math.isfinite(study.participation.norm_factor):
        raise ValueError(
            "participation.norm_factor compares single updates, which secure_aggregation hides: set it to "
            ".inf; sites clip theirs to secure_aggregation.clipping_range"
        )
    if study.evaluation.leave_one_site_out:
        raise ValueError(
            "evaluation.leave_one_site_out would give each site's updates away as the difference of two "
            "sums; set it to false under secure_aggregation"
        )
    if not config.histograms:
        return
    for key in ("groups", "local_baseline", "pooled_baseline"):
        if getattr(study.evaluation, key):
            raise ValueError(
                f"evaluation.{key} needs figures of each site, and secure_aggregation sums them: leave it "
                "out, or set secure_aggregation.histograms to false"
            )
